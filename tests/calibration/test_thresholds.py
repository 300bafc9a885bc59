from __future__ import annotations

import numpy as np
import pytest

from storm_edge.calibration.histogram import Histogram
from storm_edge.calibration.thresholds import METHODS, find_range, quantization_noise


def histogram(values: np.ndarray) -> Histogram:
    made = Histogram()
    made.add(values.astype(np.float32))
    return made


OUTLIERS = np.concatenate([np.random.default_rng(0).normal(size=100_000), [60.0, -40.0]])


def test_minmax_takes_the_extremes() -> None:
    found = find_range(histogram(OUTLIERS), "minmax")
    assert (found.low, found.high, found.int8, found.largest) == (-40, 60, 60, 60)


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_the_others_cut_outliers_of_int8_but_never_of_fp8(method: str) -> None:
    found = find_range(histogram(OUTLIERS), method)  # type: ignore[arg-type]
    assert 3 < found.int8 < 55
    assert -40 <= found.low < -2
    assert 2 < found.high < 60
    assert found.largest == 60


def test_percentile_keeps_the_share_it_says() -> None:
    values = np.random.default_rng(1).normal(size=200_000)
    found = find_range(histogram(values), "percentile")
    assert np.mean(np.abs(values.astype(np.float32)) <= found.int8) == pytest.approx(0.9999, abs=5e-5)


def test_mse_is_the_best_cut_that_trying_them_on_the_values_finds() -> None:
    values = np.random.default_rng(2).standard_t(3, 50_000)

    def noise(cut: float) -> float:
        return float(np.mean((np.rint(values.clip(-cut, cut) / cut * 127) * cut / 127 - values) ** 2))

    seen = histogram(values)
    found = find_range(seen, "mse").int8
    best = min(noise(seen_cut) for seen_cut in np.linspace(0.1, 1, 91) * np.abs(values).max())
    assert noise(found) <= 1.05 * best
    measured = 10 * np.log10(np.mean(values**2) / noise(found))
    assert quantization_noise(seen, -found, found, 254) == pytest.approx(measured, abs=0.5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("values", [np.linspace(0, 7, 999), -np.linspace(1, 2, 999), np.array([0.0, 1e-20])])
def test_one_sided_and_tiny_values_have_a_range(method: str, values: np.ndarray) -> None:
    found = find_range(histogram(values), method)  # type: ignore[arg-type]
    assert found.low < found.high
    assert 0 < found.int8 <= found.largest


def test_a_constant_has_none() -> None:
    with pytest.raises(ValueError, match="every value is 3"):
        find_range(histogram(np.full(9, 3.0)), "minmax")
