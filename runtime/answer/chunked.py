"""The temporal encoder chunk by chunk: clips of any length in memory that grows with their tokens alone.

Every layer goes over the clip twice: backwards for the states that its backward direction has in front of each chunk,
then forwards, where both directions are computed and the chunk's tokens are replaced by what comes out. Beside the
tokens (T * N, D) only x, which both sweeps read, may be as long as the clip; chunks whose x finds no room compute it
twice. See `export.passes.cut_temporal` for the pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.config.sizes import TEMPORAL_CHUNK
from storm_edge.runtime.sessions.base import Session
from storm_edge.runtime.sessions.device import Device, Tensor

Inputs = dict[str, Tensor]  # of a piece, by name: a direction's states


@dataclass(frozen=True)
class Layer:
    """The sessions of one layer; `states` is None where it looks forward only."""

    enter: Session
    states: Session | None
    mix: Session


def chunk_frames(config: StormConfig) -> int:
    """Frames of a chunk: whole groups of pooled frames, with some TEMPORAL_CHUNK tokens."""
    k = config.reduction.temporal_pool
    return k * max(1, TEMPORAL_CHUNK // (k * config.tokens_per_frame))


class ChunkedTemporal:
    """All layers and the pooling, in pieces. Its device is that of the sessions."""

    def __init__(self, layers: list[Layer], pool: Session, config: StormConfig) -> None:
        self._layers, self._pool, self._config = layers, pool, config
        self.device: Device = pool.device

    def run(self, tokens: Tensor, frames: int, room: Callable[[], int]) -> Tensor:
        """Tokens (T, N, D), which are overwritten -> visual tokens (1, T / k, N / p, D).

        T is whole groups of pooled frames; `frames` are those of a chunk, and `room()` bytes may hold copies of x.
        Raises EngineError.
        """
        length = len(tokens) * tokens.shape[1]
        clip = self.device.reshape(tokens, (1, length, tokens.shape[2]))
        step = frames * tokens.shape[1]
        chunks = [clip[:, at : at + step] for at in range(0, length, step)]
        pooled: list[Tensor] = []
        for layer in self._layers:
            for chunk, mixed in zip(chunks, self._sweep(layer, chunks, room()), strict=True):
                if layer is self._layers[-1]:
                    pooled.append(self._pool.run(tokens=mixed)["visual_tokens"])
                else:
                    self.device.write(chunk, mixed)
        visual: Tensor = self.device.concatenate(pooled, axis=1)
        return visual

    def _sweep(self, layer: Layer, chunks: list[Tensor], room: int) -> Iterator[Tensor]:
        """What a layer makes of every chunk (1, L, D), first to last; a chunk is not read again after its own."""
        behind: list[Inputs] = [{}] * len(chunks)  # the backward direction's states in front of each chunk
        kept: dict[int, Tensor] = {}
        if layer.states is not None:
            states = self._zeros("backward", chunks[0].dtype)
            for i in reversed(range(len(chunks))):
                behind[i] = states
                if i == 0 and room <= 0:
                    break
                x = layer.enter.run(tokens=chunks[i])["x"]
                if i:
                    states = _carried(layer.states.run(x=x, **states))
                if (room := room - bytes_of(x)) >= 0:
                    kept[i] = x
        states = self._zeros("forward", chunks[0].dtype)
        for i, chunk in enumerate(chunks):
            x = kept.pop(i) if i in kept else layer.enter.run(tokens=chunk)["x"]
            found = layer.mix.run(tokens=chunk, x=x, **states, **behind[i])
            behind[i], states = {}, _carried(found)
            yield found["mixed"]

    def _zeros(self, direction: str, dtype: Any) -> Inputs:
        """The states in front of the first token of a direction."""
        config = self._config
        conv = np.zeros((1, config.temporal.d_conv - 1, config.d_inner), dtype)
        scan = np.zeros((1, config.d_inner, config.temporal.d_state), np.float32)
        return {f"{direction}_conv_state": self.device.put(conv), f"{direction}_scan_state": self.device.put(scan)}


def _carried(found: Mapping[str, Tensor]) -> Inputs:
    """A piece's next states, as those that go in."""
    return {name.removeprefix("next_"): found[name] for name in found if name.startswith("next_")}


def bytes_of(tensor: Tensor) -> int:
    """What a tensor's numbers take."""
    return math.prod(tensor.shape) * int(np.dtype(tensor.dtype).itemsize)
