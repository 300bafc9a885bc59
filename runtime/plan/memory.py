"""What each stage holds in memory, in bytes."""

from __future__ import annotations

import math

from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.config.sizes import STEP, VISION_BATCH, chunk_frames, whole_frames
from storm_edge.runtime.plan.work import (
    Linear,
    activation_bytes,
    linear_bytes,
    llm_linears,
    projector_linears,
    temporal_linears,
    vision_linears,
)

TACTICS = 32 * 2**20  # scratch that a matrix product may take: cuBLASLt's usual workspace


def vision_weights(config: StormConfig, precision: str) -> float:
    """Tower and projector; what is no matrix, and the patch convolution, stays in floating point."""
    v = config.vision
    rest = v.hidden_size * (3 * v.patch_size**2 + 1)  # patch embedding
    rest += v.grid**2 * v.hidden_size  # positions
    rest += v.layers_run * 4 * v.hidden_size  # two norms a layer
    if config.temporal.projector_norm:
        rest += 2 * config.projector_widths[0]
    if config.temporal.projector == "mlp3x_gelu":
        rest += 2 * config.projector_widths[1]
    return _weights(vision_linears(config) + projector_linears(config), rest, precision)


def temporal_weights(config: StormConfig, precision: str) -> float:
    """The Mamba layers; A, D and the step-size bias are always fp32."""
    t, channels = config.temporal, config.d_inner
    both = t.num_layers * (2 if t.bidirectional else 1)
    rest = t.num_layers * (2 if t.norm == "layer" else 1) * config.llm.hidden_size + both * channels * (t.d_conv + 1)
    fp32 = both * channels * (t.d_state + 2)
    return _weights(temporal_linears(config), rest, precision) + 4 * fp32


def llm_weights(config: StormConfig, precision: str) -> float:
    """The decoder; the embedding table lies on disk and is read row by row, the head is not quantized."""
    m = config.llm
    norms = (2 * m.num_hidden_layers + 1) * m.hidden_size
    norms += 2 * m.num_hidden_layers * m.head_dim if m.head_norms else 0
    return _weights(llm_linears(config), norms, precision)


def embedding(config: StormConfig) -> float:
    """The embedding table in 16 bits, which runners with a loop of their own hold on every GPU."""
    return 2.0 * config.llm.vocab_size * config.llm.hidden_size


def _weights(linears: list[Linear], rest: int, precision: str) -> float:
    rest += sum(x.biases for x in linears)
    return sum(linear_bytes(x, precision) for x in linears) + rest * activation_bytes(precision)


def vision_activations(config: StormConfig, frames: int, precision: str, batch: int) -> float:
    """The widest moment of a layer over `batch` frames, with what goes in and out.

    That is the residual, and either Q, K, V and result or the MLP's middle.
    """
    v, act = config.vision, activation_bytes(precision)
    batch = min(batch, frames)
    widest = v.hidden_size + max(5 * v.hidden_size, 2 * v.intermediate_size)
    given = v.image_size**2 * 3 + config.tokens_per_frame * config.llm.hidden_size * act
    return float(batch * (v.grid**2 * widest * act + given))


def temporal_activations(config: StormConfig, frames: int, precision: str, *, pieces: bool) -> float:
    """A layer's tensors over the tokens computed at once: of the clip, or, with `pieces`, of a chunk of a longer one.

    Residual and norm, x, z and y of the first direction, and u, delta and y of the second. What else a long clip's
    first sweep finds room to keep is not needed, and not counted. Without layers: as much again as the tokens, for
    pooling.
    """
    if not config.temporal.num_layers:
        return frames * config.tokens_per_frame * config.llm.hidden_size * activation_bytes(precision)
    at_once = chunk_frames(config) if pieces and frames > whole_frames(config) else frames
    directions = 3 if config.temporal.bidirectional else 2
    layer = 2 * config.llm.hidden_size + (2 + 1 + directions) * config.d_inner
    return float(config.scanned_tokens(at_once) * layer * activation_bytes(precision))


def prefill_activations(config: StormConfig, tokens: int, length: int, precision: str, chunk: int) -> float:
    """A layer's tensors over `chunk` tokens, the mask over the cache, the logits."""
    m, act = config.llm, activation_bytes(precision)
    chunk = min(chunk, tokens)
    layer = 3 * m.hidden_size + max(2 * m.intermediate_size, 2 * m.num_attention_heads * m.head_dim)
    return float(chunk * layer * act + chunk * length + m.vocab_size * 4)


def prompt_bytes(config: StormConfig, tokens: int, precision: str) -> float:
    """The embeddings of a prompt."""
    return float(tokens * config.llm.hidden_size * activation_bytes(precision))


def clip_bytes(config: StormConfig, frames: int, precision: str, *, pieces: bool) -> float:
    """The tokens of a clip before they are pooled, held once; of a long one, with `pieces`, in the model's own type."""
    narrow = pieces and frames > whole_frames(config) and config.dtype != "float32"
    size = min(activation_bytes(precision), 2 if narrow else 4)
    return float(frames * config.tokens_per_frame * config.llm.hidden_size * size)


def visual_bytes(config: StormConfig, frames: int, precision: str) -> float:
    """The same after pooling."""
    tokens = frames // config.reduction.temporal_pool * config.pooled_tokens_per_frame
    return prompt_bytes(config, tokens, precision)


def scan_workspace(config: StormConfig) -> float:
    """The scan's states in flight: 14 MB at 7168 channels of 16 states, whatever the length."""
    return 30.0 * config.d_inner * config.temporal.d_state * 4


def llm_workspace(config: StormConfig, precision: str) -> float:
    """Beside the tactics', room to expand the largest 4-bit matrix to 16 bits."""
    largest = max(x.inputs * x.outputs for x in llm_linears(config) if not x.kept)
    return TACTICS + (2.0 * largest if precision == "int4" else 0)


def unfused_attention(config: StormConfig) -> float:
    """What vision needs in addition where attention is not fused: scores and their softmax, at the largest batch."""
    v = config.vision
    return 2.0 * VISION_BATCH * v.num_attention_heads * v.grid**4 * 2


def grown_length(tokens: int, context: int) -> int:
    """Positions of a KV cache that grew in steps to hold `tokens`, of a model made for `context`."""
    return max(tokens, min(math.ceil(tokens / STEP) * STEP, context))
