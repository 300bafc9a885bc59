"""The temporal encoder of a live video: new frames in, visual tokens of full groups out, at a cost that never grows."""

from __future__ import annotations

from storm_edge.runtime.answer.chunked import Inputs
from storm_edge.runtime.answer.temporal import TemporalEncoder
from storm_edge.runtime.config.sizes import chunk_frames
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.sessions.device import Device, Tensor


class TemporalStream:
    """One video's way through an encoder that looks forward only; `Encoders.stream` makes one.

    What comes out is what the whole clip would give. A call that raises EngineError has not happened: it can be
    repeated. Several streams may share the encoder.
    """

    def __init__(self, encoder: TemporalEncoder) -> None:
        """Raises UsageError for an encoder that looks backwards too, EngineError."""
        self._config = config = encoder.config
        if config.temporal.bidirectional:
            raise UsageError(
                "this model's temporal encoder looks at what comes after a frame, so it cannot follow a live video:"
                " use a checkpoint whose config.json has bidirectional false, or open clips one by one."
            )
        self._pieces = encoder.pieces()
        self.device: Device = self._pieces.device
        self._begin()

    def _begin(self) -> None:
        self._states: list[Inputs] = self._pieces.start()
        self._group: Tensor | None = None  # (1, k * N, D) with the frames of a group that is not full yet
        self._count = 0  # of those frames
        self._last: Tensor | None = None

    def add(self, tokens: Tensor) -> Tensor | None:
        """Tokens (n, N, D) of the next frames, of this device -> visual tokens (1, groups, N / p, D) of the groups of k
        frames that are full now, None where none is. Raises EngineError.
        """
        device, k, n = self.device, self._config.reduction.temporal_pool, tokens.shape[1]
        states, group, count = self._states, self._group, self._count
        full: list[Tensor] = []
        for at in range(0, len(tokens), chunk_frames(self._config)):
            part = tokens[at : at + chunk_frames(self._config)]
            rows = device.reshape(part, (1, len(part) * n, tokens.shape[2]))
            mixed, states = self._pieces.advance(rows, states)
            while mixed.shape[1]:
                if group is None:
                    group = device.empty((1, k * n, tokens.shape[2]), mixed.dtype)
                taken = min(k - count, mixed.shape[1] // n)
                device.write(group[:, count * n : (count + taken) * n], mixed[:, : taken * n])
                mixed, count = mixed[:, taken * n :], count + taken
                if count == k:
                    full.append(self._pieces.pool(group))
                    group, count = None, 0
        if len(tokens):
            self._last = device.empty((1, *tokens.shape[1:]), tokens.dtype)
            device.write(self._last, tokens[-1:])
        self._states, self._group, self._count = states, group, count
        return device.concatenate(full, axis=1) if full else None

    def finish(self) -> Tensor | None:
        """The visual tokens of the last group, which the last frame fills up, None where none has begun.

        What is added next is another video. Raises EngineError.
        """
        visual: Tensor | None = None
        if self._count and self._last is not None:
            missing = self._config.reduction.temporal_pool - self._count
            visual = self.add(self.device.concatenate([self._last] * missing))
        self._begin()
        return visual
