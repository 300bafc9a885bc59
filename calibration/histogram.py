"""A histogram of a stream of values, in memory that does not grow with it, whatever order the values come in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 4096  # over [-limit, limit): a bin is 1/16 of an int8 step where the limit is the range


@dataclass
class Histogram:
    """Counts over [-limit, limit) with a power of two as the limit, and the exact extremes.

    A value outside doubles the limit, which merges bins two by two and loses nothing else. So equal values give an
    equal histogram, in whatever order and portions they were added.
    """

    limit: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: NDArray[Any]) -> None:
        """Count the values of an array of any shape; raises ValueError for NaN and infinity, and counts nothing."""
        flat = values.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("values that are no finite numbers")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._grow(max(-low, high))
        # A value equal to the limit belongs to the last bin. Powers of two keep the product exact.
        places = (flat * np.float32(BINS / 2 / self.limit) + np.float32(BINS / 2)).astype(np.int64).clip(0, BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)

    def _grow(self, largest: float) -> None:
        if not self.limit:
            self.limit = 2.0 ** math.ceil(math.log2(max(largest, 2.0**-60)))
        while self.limit < largest:
            quarter = BINS // 4
            merged = self.counts.reshape(-1, 2).sum(axis=1)  # (BINS / 2)
            self.counts = np.pad(merged, quarter)
            self.limit *= 2

    @property
    def centers(self) -> NDArray[np.float64]:
        """The value in the middle of each bin."""
        step = 2 * self.limit / BINS
        return np.asarray((np.arange(BINS) + 0.5) * step - self.limit, np.float64)

    @property
    def magnitudes(self) -> NDArray[np.int64]:
        """Counts of |x| over [0, limit), in BINS / 2 bins."""
        half = BINS // 2
        return self.counts[half:] + self.counts[:half][::-1]
