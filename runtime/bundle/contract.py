"""The contract of the canonical graphs: what each takes and gives, from a model's configuration alone."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from storm_edge.runtime.config.schema import DType, StormConfig

Stage = Literal["vision", "temporal", "decoder"]
STAGES: tuple[Stage, ...] = ("vision", "temporal", "decoder")


class TensorSpec(BaseModel):
    """A graph input or output; a dynamic axis is a name."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    name: str
    dtype: str
    shape: list[int | str]


def contract(config: StormConfig, dtype: DType, stage: Stage) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of a stage's graph whose floating values are `dtype`."""
    side, width, per_frame = config.vision.image_size, config.llm.hidden_size, config.tokens_per_frame
    if stage == "vision":
        return (
            [_spec("frames", "uint8", "frames", side, side, 3)],
            [_spec("tokens", dtype, "frames", per_frame, width)],
        )
    if stage == "temporal":
        pooled = _spec("visual_tokens", dtype, 1, "pooled_frames", config.pooled_tokens_per_frame, width)
        return [_spec("tokens", dtype, 1, "frames", per_frame, width)], [pooled]
    llm = config.llm
    past, present = (
        [
            _spec(f"{when}_{kind}_{i}", dtype, 1, llm.num_key_value_heads, "length", llm.head_dim)
            for i in range(llm.num_hidden_layers)
            for kind in ("key", "value")
        ]
        for when in ("past", "present")
    )
    return (
        [
            _spec("inputs_embeds", dtype, 1, "sequence", width),
            _spec("position_ids", "int64", 1, "sequence"),
            _spec("write_indices", "int64", 1),
            *past,
        ],
        [_spec("logits", "float32", 1, 1, llm.vocab_size), *present],
    )


def piece_contract(config: StormConfig, dtype: DType, name: str) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of a piece of the temporal encoder, which takes a clip chunk by chunk: `tokens` of a chunk.

    Pieces are called "pool", and of layer i "i.enter", "i.states" and "i.mix". States are those of one direction before
    a chunk in that direction's order; those of the scan are float32.
    """
    piece = name.rpartition(".")[2]
    width, channels, temporal = config.llm.hidden_size, config.d_inner, config.temporal
    tokens, x = _spec("tokens", dtype, 1, "tokens", width), _spec("x", dtype, 1, "tokens", channels)

    def states(direction: str, when: str = "") -> list[TensorSpec]:
        return [
            _spec(f"{when}{direction}_conv_state", dtype, 1, temporal.d_conv - 1, channels),
            _spec(f"{when}{direction}_scan_state", "float32", 1, channels, temporal.d_state),
        ]

    if piece == "enter":
        return [tokens], [x]
    if piece == "states":
        return [x, *states("backward")], states("backward", "next_")
    if piece == "mix":
        backward = states("backward") if temporal.bidirectional else []
        mixed = _spec("mixed", dtype, 1, "tokens", width)
        return [tokens, x, *states("forward"), *backward], [mixed, *states("forward", "next_")]
    return [tokens], [_spec("visual_tokens", dtype, 1, "pooled_frames", config.pooled_tokens_per_frame, width)]


def _spec(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=list(shape))
