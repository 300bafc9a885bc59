"""Where to cut a tensor's values: the methods of calibration, on histograms."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from storm_edge.calibration.histogram import BINS, Histogram
from storm_edge.calibration.methods import Method
from storm_edge.runtime.bundle.calibration import Range

KEPT = 0.9999  # share of the values that percentile keeps
_LEVELS = 128  # of an int8 magnitude, for the entropy
_SHRINKS = np.linspace(0.1, 1.0, 91)  # parts of the whole range that mse and entropy try


def find_range(seen: Histogram, method: Method) -> Range:
    """The range of a tensor by `method`; fp8 always takes the extremes, which its exponent reaches.

    Raises ValueError where every value was the same number: there is nothing to scale by.
    """
    low, high = seen.low, seen.high
    if not low < high:
        raise ValueError(f"every value is {low:g}")
    cut = largest = max(-low, high)
    step = 2 * seen.limit / BINS
    if method == "percentile":
        tails = np.cumsum(seen.counts) / seen.counts.sum()
        low = max(low, float(np.searchsorted(tails, (1 - KEPT) / 2)) * step - seen.limit)
        high = min(high, float(np.searchsorted(tails, (1 + KEPT) / 2) + 1) * step - seen.limit)
        inside = np.cumsum(seen.magnitudes) / seen.counts.sum()
        cut = min(largest, float(np.searchsorted(inside, KEPT) + 1) * step)
    elif method == "entropy":
        cut *= float(_SHRINKS[int(np.argmin([_divergence(seen, largest * s) for s in _SHRINKS]))])
        low, high = max(low, -cut), min(high, cut)
    elif method == "mse":
        part = float(_SHRINKS[int(np.argmin([_error(seen, low * s, high * s, 255) for s in _SHRINKS]))])
        low, high = low * part, high * part
        cut *= float(_SHRINKS[int(np.argmin([_error(seen, -largest * s, largest * s, 254) for s in _SHRINKS]))])
    # 0 is exact in every scheme, so it belongs to every range.
    return Range(min(low, 0.0), max(high, 0.0), cut, largest)


def quantization_noise(seen: Histogram, low: float, high: float, steps: int) -> float:
    """The mean squared error of rounding and cutting over the mean square of the values, in decibels below it."""
    power = float((seen.counts * seen.centers**2).sum() / seen.counts.sum())
    return float(10 * np.log10(max(power, 1e-300) / max(_error(seen, low, high, steps), 1e-300)))


def _error(seen: Histogram, low: float, high: float, steps: int) -> float:
    """The mean squared error where [low, high], widened to hold 0, is cut into `steps`."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / steps
    kept = seen.centers.clip(low, high)
    error = np.rint((kept - low) / scale) * scale + low - seen.centers
    # Inside a bin the rounding error is spread as evenly as inside a step, where bins are no finer than steps.
    return float((seen.counts * error**2).sum() / seen.counts.sum())


def _divergence(seen: Histogram, cut: float) -> float:
    """Kullback-Leibler divergence between |x| cut at `cut` and the same in _LEVELS levels (as in TensorRT's talk)."""
    counts = seen.magnitudes.astype(np.float64)
    bins = min(len(counts), max(_LEVELS, int(np.ceil(cut / (seen.limit / len(counts))))))
    inside = counts[:bins].copy()
    inside[-1] += counts[bins:].sum()
    levels = _coarse(counts[:bins])
    p, q = inside / inside.sum(), levels / max(levels.sum(), 1e-300)
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-12))).sum())


def _coarse(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts averaged over _LEVELS levels, each over its bins that are not empty."""
    level = np.arange(len(counts)) * _LEVELS // len(counts)
    total = np.bincount(level, counts, _LEVELS)
    filled = np.bincount(level, counts > 0, _LEVELS)
    return np.where(counts > 0, (total / np.maximum(filled, 1))[level], 0.0)


METHODS: tuple[Method, ...] = get_args(Method)
