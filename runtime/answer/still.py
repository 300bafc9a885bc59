"""Frames that show nothing new, so that the tokens of the one before are theirs as well."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from storm_edge.runtime.errors import UsageError


class StillFrames:
    """Compares frames at the model's size, one after the other; memory is that of a batch.

    A frame is still where no channel of a pixel differs by more than `tolerance` of 255 from the last frame that was
    not still: what is small and moves is seen, and slow changes do not add up unseen. Raises UsageError.
    """

    def __init__(self, tolerance: int = 0) -> None:
        if isinstance(tolerance, bool) or not isinstance(tolerance, int) or not 0 <= tolerance <= 255:
            raise UsageError(f"skip_still is {tolerance!r}: give the levels by which a pixel may differ, 0 to 255.")
        self._tolerance = tolerance
        self._last: NDArray[np.uint8] | None = None
        self.count = 0

    def moving(self, frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of the next frames (n, H, W, 3) are not still, (n,)."""
        found = np.ones(len(frames), bool)
        for i, frame in enumerate(frames):
            found[i] = self._last is None or not self._alike(frame, self._last)
            if found[i]:
                self._last = frame
        self.count += int((~found).sum())
        return found

    def _alike(self, frame: NDArray[np.uint8], last: NDArray[np.uint8]) -> bool:
        if not self._tolerance:
            return np.array_equal(frame, last)
        return int((np.maximum(frame, last) - np.minimum(frame, last)).max()) <= self._tolerance
