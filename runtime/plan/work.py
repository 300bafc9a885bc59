"""The work of each stage, counted from the configuration: matrix products, attention, the scan, and their traffic.

FLOPs are two per multiply-add. Bytes are what must cross the memory bus when everything elementwise is fused into a
neighbour and attention is fused: weights once per run of a graph, inputs and outputs of each operation once. The scan's
own arithmetic runs beside the tensor cores and is bound by its traffic, so only that is counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.config.sizes import chunk_frames, whole_frames

INT4_BLOCK = 128  # weights that share a 16-bit scale

WEIGHT_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0, "fp8": 1.0, "int4": 0.5 + 2 / INT4_BLOCK}


def activation_bytes(precision: str) -> int:
    """Bytes of one activation: quantized graphs keep theirs in 16 bits between the matrix products."""
    return 4 if precision == "fp32" else 2


@dataclass(frozen=True)
class Linear:
    """`count` matrices of inputs x outputs; `bias` says whether each has one. `kept`: never quantized."""

    inputs: int
    outputs: int
    count: int = 1
    bias: bool = False
    kept: bool = False

    @property
    def weights(self) -> int:
        """Elements of all matrices."""
        return self.inputs * self.outputs * self.count

    @property
    def biases(self) -> int:
        """Elements of all biases."""
        return self.outputs * self.count if self.bias else 0


@dataclass(frozen=True)
class Work:
    """One operation: arithmetic in `precision`, and the bytes it moves."""

    name: str
    flops: float
    bytes: float
    precision: str


def vision_linears(config: StormConfig) -> list[Linear]:
    """The tower's."""
    v = config.vision
    layers = v.layers_run
    return [
        Linear(v.hidden_size, v.hidden_size, 4 * layers, bias=True),
        Linear(v.hidden_size, v.intermediate_size, layers, bias=True),
        Linear(v.intermediate_size, v.hidden_size, layers, bias=True),
    ]


def projector_linears(config: StormConfig) -> list[Linear]:
    """The projector's, which sees as many tokens as space-to-depth leaves."""
    return [Linear(a, b, bias=True) for a, b in pairwise(config.projector_widths)]


def temporal_linears(config: StormConfig) -> list[Linear]:
    """Those of all Mamba layers; in_proj and out_proj serve both directions. The scan adds dt_proj's bias."""
    t, width, channels = config.temporal, config.llm.hidden_size, config.d_inner
    both = t.num_layers * (2 if t.bidirectional else 1)
    return [
        Linear(width, 2 * channels, t.num_layers),
        Linear(channels, width, t.num_layers),
        Linear(channels, config.dt_rank + 2 * t.d_state, both),
        Linear(config.dt_rank, channels, both),
    ]


def llm_linears(config: StormConfig) -> list[Linear]:
    """The decoder's, then its head."""
    m = config.llm
    heads, kv, layers = m.heads_width, m.num_key_value_heads * m.head_dim, m.num_hidden_layers
    return [
        Linear(m.hidden_size, heads + 2 * kv, layers, bias=not m.head_norms),
        Linear(heads, m.hidden_size, layers),
        Linear(m.hidden_size, m.intermediate_size, 2 * layers),
        Linear(m.intermediate_size, m.hidden_size, layers),
        Linear(m.hidden_size, m.vocab_size, kept=True),
    ]


def vision_work(config: StormConfig, frames: int, precision: str, batch: int) -> list[Work]:
    """The tower and projector over `frames` frames, `batch` at a time."""
    v, act = config.vision, activation_bytes(precision)
    patches = v.grid**2
    runs = math.ceil(frames / batch)
    work = [_linear("linear layers", x, frames * patches, runs, precision) for x in vision_linears(config)]
    tokens = frames * config.tokens_per_frame
    work += [_linear("projector", x, tokens, runs, precision) for x in projector_linears(config)]
    patch = Linear(3 * v.patch_size**2, v.hidden_size, kept=True)
    work.append(_linear("patch embedding", patch, frames * patches, runs, precision))
    rows = float(frames * patches * v.layers_run)
    # Q K^T and its product with V, each patches x patches x width; Q, K, V are read and the result written.
    work.append(
        Work("attention", 4 * rows * patches * v.hidden_size, 4 * rows * v.hidden_size * act, _floating(precision))
    )
    # Two norms and two residual sums a layer: each reads two tensors and writes one.
    work.append(Work("norms and sums", 0, 6 * rows * v.hidden_size * act, _floating(precision)))
    return work


def temporal_work(config: StormConfig, frames: int, precision: str, *, pieces: bool = False) -> list[Work]:
    """All Mamba layers over the tokens of all frames: the scan sees every one of them, whatever is pooled later.

    With `pieces` long clips go through in chunks, with a sweep before for the backward direction's states.
    """
    t, act = config.temporal, activation_bytes(precision)
    tokens = config.scanned_tokens(frames)
    long = pieces and frames > whole_frames(config)
    runs = math.ceil(frames / chunk_frames(config)) if long else 1
    linears = temporal_linears(config)
    work = [_linear("projections", x, tokens, runs, precision) for x in linears]
    both = t.num_layers * (2 if t.bidirectional else 1)
    # Convolution: x in, u out. Scan: u, delta and z in, y out; B and C are small.
    work.append(Work("convolution", 0, 2.0 * both * tokens * config.d_inner * act, _floating(precision)))
    work.append(Work("scan", 0, 4.0 * both * tokens * config.d_inner * act, _floating(precision)))
    # Splitting x and z, adding the directions, the norm, the residual sum.
    traffic = t.num_layers * tokens * (7.0 * config.d_inner + 5.0 * config.llm.hidden_size)
    work.append(Work("norms and sums", 0, traffic * act, _floating(precision)))
    if long and t.bidirectional:
        again = [replace(x, count=t.num_layers) for x in linears[-2:]]  # x_proj and dt_proj of one direction
        work += [_linear("states before chunks", x, tokens, runs, precision) for x in again]
        moved = 6.0 * t.num_layers * tokens * config.d_inner * act
        work.append(Work("states before chunks", 0, moved, _floating(precision)))
    return work


def prefill_work(config: StormConfig, tokens: int, precision: str, chunk: int) -> list[Work]:
    """A prompt of `tokens` positions, `chunk` at once; logits of the last position of each chunk only."""
    m, act = config.llm, activation_bytes(precision)
    runs = math.ceil(tokens / chunk)
    *layers, head = llm_linears(config)
    work = [_linear("linear layers", x, tokens, runs, precision) for x in layers]
    work.append(_linear("head", head, runs, runs, precision))
    width = m.num_attention_heads * m.head_dim
    # Causal: each position meets half of the others on average. Keys and values are read once a chunk.
    flops = 2.0 * tokens * tokens * width * m.num_hidden_layers
    cached = kv_bytes(config, tokens, precision) * (runs + 1) / 2
    work.append(
        Work("attention", flops, cached + 2.0 * tokens * width * m.num_hidden_layers * act, _floating(precision))
    )
    traffic = 6.0 * tokens * m.hidden_size * m.num_hidden_layers * act
    work.append(Work("norms and sums", 0, traffic, _floating(precision)))
    return work


def decode_work(config: StormConfig, context: int, precision: str) -> list[Work]:
    """One token with `context` positions before it: all weights and all keys and values are read."""
    m = config.llm
    work = [_linear("linear layers", x, 1, 1, precision) for x in llm_linears(config)]
    flops = 4.0 * context * m.num_attention_heads * m.head_dim * m.num_hidden_layers
    work.append(Work("attention", flops, kv_bytes(config, context, precision), _floating(precision)))
    return work


def kv_bytes(config: StormConfig, length: int, precision: str) -> float:
    """Keys and values of `length` positions; they are never quantized here."""
    m = config.llm
    return 2.0 * m.num_hidden_layers * m.num_key_value_heads * m.head_dim * length * activation_bytes(precision)


def linear_bytes(linear: Linear, precision: str) -> float:
    """What a layer's matrices take in memory."""
    return linear.weights * WEIGHT_BYTES[_floating(precision) if linear.kept else precision]


def _linear(name: str, linear: Linear, rows: int, runs: int, precision: str) -> Work:
    arithmetic = _floating(precision) if linear.kept else precision
    moved = float(rows) * linear.count * (linear.inputs + linear.outputs) * activation_bytes(precision)
    return Work(name, 2.0 * rows * linear.weights, runs * linear_bytes(linear, precision) + moved, arithmetic)


def _floating(precision: str) -> str:
    """The precision of what is not quantized."""
    return precision if precision in ("fp32", "fp16", "bf16") else "fp16"
