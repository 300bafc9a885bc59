"""The temporal encoder chunk by chunk: clips of any length in memory that grows with their tokens alone.

Every layer goes over the clip twice: backwards for the states that its backward direction has in front of each chunk,
then forwards, where both directions are computed and the chunk's tokens are replaced by what comes out. Beside the
tokens (T * N, D) only x, which both sweeps read, may be as long as the clip; chunks whose x finds no room compute it
twice. See `export.passes.cut_temporal` for the pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.sessions.base import Session
from storm_edge.runtime.sessions.device import Device, Tensor

Inputs = dict[str, Tensor]  # of a piece, by name: a direction's states


@dataclass(frozen=True)
class Layer:
    """The sessions of one layer; `states` is None where it looks forward only."""

    enter: Session
    states: Session | None
    mix: Session


class ChunkedTemporal:
    """All layers and the pooling, in pieces. Its device is that of the sessions."""

    def __init__(self, layers: list[Layer], pool: Session, config: StormConfig) -> None:
        self._layers, self._pool, self._config = layers, pool, config
        self.device: Device = pool.device

    def run(self, blocks: Sequence[Tensor], frames: int, room: Callable[[], int]) -> Tensor:
        """Tokens (T, N, D) in blocks of whole groups of pooled frames -> visual tokens (1, T / k, N / p, D).

        What lies between two layers takes the place of the tokens, in their type. `frames` are those of a chunk, whole
        groups too, and `room()` bytes may hold copies of x. Raises EngineError.
        """
        chunks = [self._rows(block[at : at + frames]) for block in blocks for at in range(0, len(block), frames)]
        groups = sum(map(len, blocks)) // self._config.reduction.temporal_pool
        visual: Tensor | None = None
        done = 0
        for layer in self._layers:
            for chunk, mixed in zip(chunks, self._sweep(layer, chunks, room()), strict=True):
                if layer is not self._layers[-1]:
                    self.device.write(chunk, mixed)
                    continue
                pooled = self.pool(mixed)
                if visual is None:
                    visual = self.device.empty((1, groups, *pooled.shape[2:]), pooled.dtype)
                end = done + pooled.shape[1]
                self.device.write(visual[:, done:end], pooled)
                done = end
        assert visual is not None
        return visual

    def start(self) -> list[Inputs]:
        """The forward states in front of a clip, layer by layer."""
        return [self._zeros("forward", np.float32) for _ in self._layers]

    def advance(self, tokens: Tensor, states: list[Inputs]) -> tuple[Tensor, list[Inputs]]:
        """Tokens (1, L, D) and the states in front of them -> what `pool` takes (1, L, D), and the states behind.

        For an encoder that looks forward only. Raises EngineError.
        """
        behind = []
        for layer, before in zip(self._layers, states, strict=True):
            x = layer.enter.run(tokens=tokens)["x"]
            found = layer.mix.run(tokens=tokens, x=x, **before)
            tokens = found["mixed"]
            behind.append(_carried(found))
        return tokens, behind

    def pool(self, mixed: Tensor) -> Tensor:
        """Whole groups of frames (1, L, D) -> their visual tokens (1, groups, N / p, D)."""
        return self._pool.run(tokens=mixed)["visual_tokens"]

    def _rows(self, tokens: Tensor) -> Tensor:
        """Tokens (n, N, D) as (1, n * N, D), in place."""
        rows: Tensor = self.device.reshape(tokens, (1, len(tokens) * tokens.shape[1], tokens.shape[2]))
        return rows

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
