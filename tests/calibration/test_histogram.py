from __future__ import annotations

import numpy as np
import pytest

from storm_edge.calibration.histogram import BINS, Histogram


def filled(*portions: np.ndarray) -> Histogram:
    made = Histogram()
    for portion in portions:
        made.add(portion)
    return made


def test_order_and_portions_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(0, s, 1000).astype(np.float32) for s in (0.1, 1, 30))
    first, second = filled(a, b, c), filled(c, np.concatenate([b, a]))
    np.testing.assert_array_equal(first.counts, second.counts)
    assert (first.limit, first.low, first.high) == (second.limit, second.low, second.high)
    assert first.counts.sum() == 3000


def test_growing_keeps_every_value_in_a_bin_that_holds_it() -> None:
    values = np.array([-0.9, -0.01, 0.0, 0.3, 0.5], np.float32)
    made = filled(values, np.array([100], np.float32))
    step = 2 * made.limit / BINS
    centers = np.repeat(made.centers, made.counts)
    assert (np.abs(centers - np.sort([*values, 100])) <= step / 2 + 1e-6).all()
    assert made.limit == 128


def test_magnitudes_fold_both_signs() -> None:
    made = filled(np.array([-0.75, 0.75, 0.1], np.float32))
    assert made.magnitudes[int(0.75 * BINS / 2)] + made.magnitudes[int(0.75 * BINS / 2) - 1] == 2
    assert made.magnitudes.sum() == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_finite_number_is_refused_and_not_counted(bad: float) -> None:
    made = filled(np.ones(4, np.float32))
    with pytest.raises(ValueError, match="no finite numbers"):
        made.add(np.array([1, bad], np.float32))
    assert made.counts.sum() == 4


def test_zeros_alone_are_a_histogram_too() -> None:
    made = filled(np.zeros(4, np.float32), np.full(4, 3, np.float32))
    assert (made.counts.sum(), made.low, made.high) == (8, 0, 3)
