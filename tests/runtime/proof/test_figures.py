from __future__ import annotations

import math

import numpy as np
import pytest

from storm_edge.runtime.proof.figures import difference


def test_each_figure_sees_what_the_others_miss() -> None:
    x = np.linspace(-1, 1, 101, dtype=np.float32)
    scaled, turned, spiked = difference(1.1 * x, x), difference(np.roll(x, 1), x), x.copy()
    spiked[0] = 0
    assert scaled.cosine == pytest.approx(1)
    assert scaled.norm_ratio == pytest.approx(0.1)
    assert turned.norm_ratio == pytest.approx(0)
    assert turned.cosine < 0.99
    assert difference(spiked, x).error == pytest.approx(1)


def test_nan_stays_nan() -> None:
    figures = difference(np.array([np.nan, 1.0]), np.array([1.0, 1.0]))
    assert all(math.isnan(value) for value in (figures.cosine, figures.norm_ratio, figures.error))
