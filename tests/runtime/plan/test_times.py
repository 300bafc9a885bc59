from __future__ import annotations

import pytest

from storm_edge.runtime.machine.hardware import DEVICES, Device
from storm_edge.runtime.plan.times import (
    FITTED,
    NVILA_DECODE,
    PAPER_ROWS,
    PaperRow,
    efficiencies,
    floor_seconds,
    nvila_floor,
    paper_floor,
)
from storm_edge.runtime.plan.work import Work


@pytest.mark.parametrize("row", PAPER_ROWS, ids=lambda r: f"{r.frames} frames over {r.reduction}")
def test_every_row_of_the_papers_table_is_expected_within_35_percent(row: PaperRow) -> None:
    measured = {"vision": row.vision, "temporal": row.temporal, "prefill": row.llm}
    for stage, floor in paper_floor(row).items():
        assert floor * 1e3 / efficiencies()[stage] == pytest.approx(measured[stage], rel=0.35), stage


def test_four_bit_decode_on_orin_is_expected_within_35_percent_of_nvilas() -> None:
    assert efficiencies()["decode"] / nvila_floor("int4") == pytest.approx(NVILA_DECODE["int4"], rel=0.35)


def test_no_stage_is_faster_than_its_floor() -> None:
    assert FITTED in PAPER_ROWS
    assert set(efficiencies()) == {"vision", "temporal", "prefill", "decode"}
    assert all(0 < share < 1 for share in efficiencies().values())


def test_the_floor_is_the_longer_of_arithmetic_and_traffic_of_each_operation() -> None:
    device = Device("toy", 1, bandwidth=10, rates={"fp16": 2})
    bound_by_arithmetic = Work("a", 4e12, 1e9, "fp16")
    bound_by_traffic = Work("b", 1e12, 30e9, "fp16")
    assert floor_seconds([bound_by_arithmetic, bound_by_traffic], device) == pytest.approx(2 + 3)


def test_a_rate_that_is_not_published_gives_no_floor() -> None:
    assert floor_seconds([Work("a", 1, 1, "fp8")], DEVICES["orin"][0]) is None
    assert floor_seconds([Work("only traffic", 0, 1e9, "fp8")], DEVICES["orin"][0]) is not None
