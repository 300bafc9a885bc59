"""The shape of a model, composed of parts: what a STORM checkpoint's `config.json` says, and others are mapped to.

Defaults are STORM's paper's (arXiv 2503.04130) where it states them and VILA's where it builds on that code; what
neither fixes (number of temporal layers, state size, scan halving) is a field, never a constant elsewhere. Models of
other families are the same parts in other forms: see `storm_edge.export.families`.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from storm_edge.runtime.config.parts import LanguageConfig as LanguageConfig
from storm_edge.runtime.config.parts import PromptConfig as PromptConfig
from storm_edge.runtime.config.parts import ReductionConfig as ReductionConfig
from storm_edge.runtime.config.parts import Section
from storm_edge.runtime.config.parts import TemporalConfig as TemporalConfig
from storm_edge.runtime.config.parts import VisionConfig as VisionConfig
from storm_edge.runtime.errors import CheckpointError, StormError

# What the fields make together.
MOST_TOKENS = 65_536  # of a frame that the temporal encoder sees [STORM: 256]
MOST_CHANNELS = 262_144  # of the scan, expand * hidden_size [STORM: 7,168]
MOST_PARAMETERS = 4 * 10**12  # [Llama 3.1: 4.05e11 dense]
DType = Literal["float32", "float16", "bfloat16"]

_MOST_BYTES = 1 << 20  # of a config.json, which has about 1 KB


class StormConfig(Section):
    """A whole STORM model. `dtype` is the type its weights are stored in."""

    model_type: Literal["storm"] = "storm"
    dtype: DType = "bfloat16"
    vision: VisionConfig = Field(default_factory=VisionConfig)
    temporal: TemporalConfig = Field(default_factory=TemporalConfig)
    reduction: ReductionConfig = Field(default_factory=ReductionConfig)
    llm: LanguageConfig = Field(default_factory=LanguageConfig)
    prompt: PromptConfig = Field(default_factory=PromptConfig)

    @property
    def d_inner(self) -> int:
        """Channels of the selective scan."""
        return self.temporal.expand * self.llm.hidden_size

    @property
    def dt_rank(self) -> int:
        """Width of the low-rank step-size projection; "auto" is ceil(D / 16), mamba_ssm's default."""
        rank = self.temporal.dt_rank
        return math.ceil(self.llm.hidden_size / 16) if rank == "auto" else rank

    @property
    def token_grid(self) -> int:
        """Visual tokens along one side after space-to-depth; an incomplete block is padded with zeros."""
        return math.ceil(self.vision.grid / self.temporal.downsample)

    @property
    def tokens_per_frame(self) -> int:
        """N: visual tokens of one frame that the temporal encoder sees."""
        return self.token_grid**2

    @property
    def projector_widths(self) -> tuple[int, ...]:
        """What goes into the projector's first Linear, and what comes out of each."""
        width, features = self.llm.hidden_size, self.vision.hidden_size * self.temporal.downsample**2
        inner = {"linear": (), "mlp2x_gelu": (width,), "mlp3x_gelu": (3 * self.vision.hidden_size, width)}
        return (features, *inner[self.temporal.projector], width)

    @property
    def pooled_grid(self) -> int:
        """Visual tokens along one side of a pooled frame."""
        side = self.token_grid / self.reduction.spatial_pool
        return math.ceil(side) if self.reduction.spatial_mode == "bilinear" else math.floor(side)

    @property
    def pooled_tokens_per_frame(self) -> int:
        """N / p: visual tokens of one pooled frame."""
        return self.pooled_grid**2

    @property
    def parameters(self) -> int:
        """Values in the matrices that run, which are nearly all of a model's."""
        vision, temporal, llm, channels = self.vision, self.temporal, self.llm, self.d_inner
        block = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
        direction = channels * (2 * self.dt_rank + 3 * temporal.d_state + temporal.d_conv)
        mixer = 3 * llm.hidden_size * channels + (2 if temporal.bidirectional else 1) * direction
        heads = 2 * llm.heads_width + 2 * llm.num_key_value_heads * llm.head_dim
        layer = llm.hidden_size * (heads + 3 * llm.intermediate_size)
        tables = (1 if llm.tie_word_embeddings else 2) * llm.vocab_size * llm.hidden_size
        projector = sum(a * b for a, b in pairwise(self.projector_widths))
        encoders = vision.layers_run * block + projector + temporal.num_layers * mixer
        return encoders + llm.num_hidden_layers * layer + tables

    def scanned_tokens(self, frames: int) -> int:
        """Tokens that the temporal layers see of `frames` frames, a selector's queries included."""
        pooled = math.ceil(frames / self.reduction.temporal_pool) * self.pooled_tokens_per_frame
        return frames * self.tokens_per_frame + (pooled if self.temporal.queries else 0)

    def visual_tokens(self, frames: int, sample: int | None = None) -> int:
        """Positions that `frames` frames take in the language model's prompt, newline tokens included."""
        pooled = math.ceil(frames / self.reduction.temporal_pool)
        kept = math.ceil(pooled / (sample or self.reduction.sample))
        newlines = {"none": int(self.reduction.newline_token), "row": self.pooled_grid, "frame": 1, "end": 0}
        each = self.pooled_tokens_per_frame + newlines[self.reduction.image_newline]
        return kept * each + (self.reduction.image_newline == "end")

    @model_validator(mode="after")
    def _consistent(self) -> StormConfig:
        for what, size, most in (
            ("visual tokens of a frame", self.tokens_per_frame, MOST_TOKENS),
            ("channels of the scan (temporal.expand * llm.hidden_size)", self.d_inner, MOST_CHANNELS),
            ("parameters", self.parameters, MOST_PARAMETERS),
        ):
            if size > most:
                raise ValueError(f"the sizes make {size} {what}, {most} are the most")
        if not self.pooled_grid:
            raise ValueError(f"reduction.spatial_pool {self.reduction.spatial_pool} leaves no token of a frame")
        if self.reduction.spatial_mode == "mean" and self.token_grid % self.reduction.spatial_pool:
            raise ValueError(
                f"reduction.spatial_pool {self.reduction.spatial_pool} does not divide the"
                f" {self.token_grid} x {self.token_grid} visual tokens of a frame"
            )
        return self


def parse_config(data: dict[str, Any], where: str, error: type[StormError] = CheckpointError) -> StormConfig:
    """Check a decoded `config.json`; raises `error` naming `where` and every field that is wrong."""
    try:
        return StormConfig.model_validate(data)
    except ValidationError as e:
        found = "; ".join(f"{'.'.join(map(str, x['loc'])) or 'config'}: {x['msg']}" for x in e.errors())
        raise error(f"{where} is not a valid STORM configuration: {found}. Correct these fields.") from e


def read_config(path: Path) -> StormConfig:
    """Read and check a checkpoint's `config.json`, a plain file or a link to one; raises CheckpointError."""
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is a folder, a pipe or a device where a file belongs: restore it.")
    try:
        if path.exists() and path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes, {_MOST_BYTES} are the most")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise CheckpointError(
            f"{path} does not exist: a STORM checkpoint has a config.json; `storm init` makes an example."
        ) from e
    except (OSError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{path} cannot be read as JSON ({e}): restore it from the checkpoint's source.") from e
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds {type(data).__name__}, not a JSON object: restore it.")
    return parse_config(data, str(path))
