"""Sizes that the runtime, the profiles that engines are built for, and the plan must agree on."""

from __future__ import annotations

from storm_edge.runtime.config.schema import StormConfig

VISION_BATCH = 8  # frames a run at the most; memory for activations grows with them
HOST_PATCHES = 1024  # of the frames of a run on a CPU: more leave its caches between the layers
# Tokens of a prompt computed at once in ONNX Runtime: more take memory for attention, fewer twice the time; see
# docs/llm.md.
CHUNK = 256
# The same in TensorRT, where attention is fused: the usual piece of a prompt, and the largest. Weights are read once a
# piece, so a long prompt wants large ones; from about 500 tokens on the arithmetic takes longer than reading them.
TENSORRT_CHUNK, TENSORRT_LARGEST_CHUNK = 512, 2048
CUDA_CHUNK = 2048  # the same in ONNX Runtime's CUDA provider, whose attention is fused too
PAGED_CHUNK = 8192  # the same of runners that have a loop and a paged cache of their own
# Channels of a head that ONNX Runtime's fused attention turns, and attends to, in multiples of.
TURNED_HEADS, ATTENDED_HEADS = 16, 8
TEXT_TOKENS = 1024  # positions for template, question and answer
# Tokens by which the key-value buffers of ONNX Runtime grow: a step costs one copy, a token of room that is not used
# yet costs attention in every layer.
STEP = 512
# Of activations of the temporal encoder: clips that would take more go through in chunks, and what a chunk takes. It is
# 1024 tokens of storm-7b, and more of narrower models: at a quarter of its width, chunks of 1024 take 1.3 times as
# long.
WHOLE_TEMPORAL_BYTES, TEMPORAL_CHUNK_BYTES = 1 << 30, 168 << 20

# Arrays (tokens, channels) that the whole temporal encoder holds in float32: x, its gate, step sizes and outputs of
# both scans.
_WHOLE_ARRAYS = 6


def vision_batch(config: StormConfig, device: str) -> int:
    """Frames of a run of the vision tower on a "cpu" or with "cuda"."""
    return VISION_BATCH if device != "cpu" else min(VISION_BATCH, max(1, HOST_PATCHES // config.vision.grid**2))


def whole_frames(config: StormConfig) -> int:
    """The longest clip, in whole groups of pooled frames, that goes through the temporal encoder at once."""
    return _frames(config, WHOLE_TEMPORAL_BYTES)


def chunk_frames(config: StormConfig) -> int:
    """Frames of a chunk of a longer one: whole groups of pooled frames."""
    return max(config.reduction.temporal_pool, _frames(config, TEMPORAL_CHUNK_BYTES))


def _frames(config: StormConfig, activations: int) -> int:
    k = config.reduction.temporal_pool
    return activations // (k * config.tokens_per_frame * config.d_inner * 4 * _WHOLE_ARRAYS) * k


def kv_length(config: StormConfig, frames: int, asked: int | None = None) -> int:
    """Positions of a KV cache of fixed length: `asked`, else a clip of so many frames and TEXT_TOKENS.

    Every token reads all of them, used or not, so that the model's own length would be paid for by every word.
    """
    return asked or min(config.visual_tokens(frames) + TEXT_TOKENS, config.llm.max_position_embeddings)
