"""The tokens of a live video's last frames, in memory that never grows."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.answer.clip_tokens import ClipTokens
from storm_edge.runtime.sessions.device import Device, Tensor


class TokenRing:
    """Tokens (N, D) of the last `window` frames and when these were shown; for one thread at a time."""

    def __init__(self, device: Device, window: int) -> None:
        self._device, self._window = device, window
        self._room: Tensor | None = None  # (window, N, D)
        self._times: deque[float] = deque(maxlen=window)
        self.added = 0

    def add(self, tokens: Tensor, time: float) -> None:
        """Take the tokens (1, N, D) of the next frame."""
        if self._room is None:
            self._room = self._device.empty((self._window, *tokens.shape[1:]), tokens.dtype)
        at = self.added % self._window
        self._device.write(self._room[at : at + 1], tokens)
        self._times.append(time)
        self.added += 1

    def copy(self, into: ClipTokens) -> npt.NDArray[np.float64]:
        """Add the frames' tokens in order, first to last; returns their times (T,)."""
        if self._room is not None:
            oldest = max(self.added - self._window, 0) % self._window
            if self.added > self._window and oldest:
                into.add(self._room[oldest:])
                into.add(self._room[:oldest])
            else:
                into.add(self._room[: len(self._times)])
        return np.array(self._times)

    def __len__(self) -> int:
        return len(self._times)
