"""BIMBA's selector in numpy, in float64, one token after the other: written from the paper and the authors' code.

And a small configuration with one, of 5 x 5 tokens a frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from storm_edge.runtime.config.schema import LanguageConfig, ReductionConfig, StormConfig, TemporalConfig, VisionConfig

Array = NDArray[np.float64]


def interpolated(x: Array, size: int) -> Array:
    """(frames, side, side, D) at `size` places along either side, linear between neighbours."""
    for axis in (1, 2):
        side = x.shape[axis]
        at = np.maximum((np.arange(size) + 0.5) * side / size - 0.5, 0)
        low = at.astype(int)
        share = np.expand_dims(at - low, tuple(i for i in range(4) if i != axis))
        x = np.take(x, low, axis) * (1 - share) + np.take(x, np.minimum(low + 1, side - 1), axis) * share
    return x


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def direction(x: Array, z: Array, state: dict[str, Array], suffix: str) -> Array:
    """Convolution, selective scan and gate over (length, channels), one token after the other."""
    weight, bias = state[f"conv1d{suffix}.weight"][:, 0], state[f"conv1d{suffix}.bias"]
    padded = np.concatenate([np.zeros((weight.shape[1] - 1, x.shape[1])), x])
    u = silu(np.stack([(padded[t : t + weight.shape[1]].T * weight).sum(1) for t in range(len(x))]) + bias)
    rank = state[f"dt_proj{suffix}.weight"].shape[1]
    A = -np.exp(state[f"A{suffix}_log"])
    projected = u @ state[f"x_proj{suffix}.weight"].T
    dt, B, C = np.split(projected, [rank, rank + A.shape[1]], axis=1)
    delta = np.log1p(np.exp(dt @ state[f"dt_proj{suffix}.weight"].T + state[f"dt_proj{suffix}.bias"]))
    h, out = np.zeros_like(A), np.empty_like(u)
    for t in range(len(u)):
        h = np.exp(delta[t][:, None] * A) * h + delta[t][:, None] * B[t] * u[t][:, None]
        out[t] = h @ C[t] + state[f"D{suffix}"] * u[t]
    return out * silu(z)


def bimba(tokens: Array, grid: int, state: dict[str, Array]) -> Array:
    """The authors' compressor on tokens (frames, grid * grid, D), one layer, queries among the tokens, in float64."""
    frames, _, width = tokens.shape
    queries = interpolated(tokens.reshape(frames, grid, grid, width), -(-grid // 2)).reshape(-1, width)
    rest = tokens.reshape(-1, width)
    places = np.linspace(0, len(rest) + len(queries) - 1, len(queries) + 1).astype(int)[1:]
    x = np.empty((len(rest) + len(queries), width))
    is_query = np.zeros(len(x), bool)
    is_query[places] = True
    x[is_query], x[~is_query] = queries, rest
    normed = state["norm.weight"] * x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-6)
    mixer = {name.removeprefix("mixer."): value for name, value in state.items()}
    u, z = np.split(normed @ mixer["in_proj.weight"].T, 2, axis=1)
    both = direction(u, z, mixer, "") + direction(u[::-1], z[::-1], mixer, "_b")[::-1]
    return (x + both @ mixer["out_proj.weight"].T)[is_query].reshape(frames, -1, width)


def selector_config() -> StormConfig:
    return StormConfig(
        vision=VisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=40,
            patch_size=8,
        ),
        temporal=TemporalConfig(num_layers=1, d_state=4, downsample=1, norm="rms", layer_norm_eps=1e-6, queries=True),
        reduction=ReductionConfig(temporal_pool=1, spatial_pool=2, spatial_mode="bilinear"),
        llm=LanguageConfig(
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            vocab_size=64,
        ),
    )
