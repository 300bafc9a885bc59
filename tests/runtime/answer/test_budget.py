from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from storm_edge.runtime.answer.budget import Budget
from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.sessions.device import HostDevice

SEVEN = Budget(preset("storm-7b"), sample=1, capacity=40_000, free=4 << 30, precision="fp32", pieces=True)


def test_the_most_frames_are_named_and_fit() -> None:
    budget = replace(SEVEN, capacity=1_000_000)
    with pytest.raises(UsageError, match=r"2000 frames take .* GiB beside the model, and 4\.0 are free") as error:
        budget.check(2000)
    assert "\n" not in str(error.value)
    most = named(error.value)
    budget.check(most)
    assert budget.bytes_of(most) <= 4 << 30 < budget.bytes_of(most + 4)


def named(error: Exception) -> int:
    return int(re.findall(r"take at most (\d+) frames", str(error))[0])


def test_without_pieces_far_fewer_frames_fit() -> None:
    with pytest.raises(UsageError, match="256 frames take") as error:
        replace(SEVEN, pieces=False).check(256)
    assert named(error.value) < 100
    SEVEN.check(256)


def test_a_long_clip_that_fits_is_not_refused_while_it_is_as_long_as_a_short_one_that_does_not() -> None:
    tight = replace(SEVEN, free=1 << 30)
    tight.check(128)
    for count in range(4, 132, 4):
        tight.check_growing(count)
    with pytest.raises(UsageError, match=r"24 frames take 1\.3 GiB") as error:
        tight.check(24)
    assert named(error.value) == 16
    with pytest.raises(UsageError, match="2000 frames take"):
        replace(tight, capacity=1_000_000).check_growing(2000)


def test_of_a_selector_the_whole_clip_must_fit() -> None:
    budget = replace(SEVEN, config=preset("bimba-7b"), pieces=False, free=8 << 30)
    with pytest.raises(UsageError, match=r"64 frames take 1\d\.\d GiB beside the model, and 8\.0 are free") as error:
        budget.check(64)
    budget.check(named(error.value))


def test_where_nothing_fits_no_number_is_named() -> None:
    with pytest.raises(UsageError, match=r"1 frames take .* are free: end other programs\.$"):
        replace(SEVEN, free=1 << 20).check(1)


def test_where_nobody_knows_what_is_free_only_the_language_model_limits() -> None:
    unknown = replace(SEVEN, free=0)
    unknown.check(512)
    with pytest.raises(UsageError, match="40960 visual tokens, the language model holds 40000"):
        unknown.check(640)


def test_a_pipeline_says_so_before_it_decodes_anything(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load(bundle, threads=1)
    monkeypatch.setattr(HostDevice, "free_bytes", lambda self: 1 << 20)
    looked: list[int] = []

    def source() -> Iterator[tuple[float, np.ndarray]]:
        for i in range(200):
            looked.append(i)
            yield float(i), np.zeros((64, 64, 3), np.uint8)

    with pytest.raises(UsageError, match=r"200 frames take .* take at most"):
        pipeline.open(source(), frames=200)
    assert looked == []
    with pytest.raises(UsageError, match=r"frames take .* take at most"):
        pipeline.open(source(), fps=1)
    assert 0 < len(looked) < 100
