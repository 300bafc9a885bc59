from __future__ import annotations

from pathlib import Path

import pytest

from storm_edge.batch.library import Item, read_library
from storm_edge.batch.predictor import Asking, Predictor
from storm_edge.runtime.errors import UsageError

pytest.importorskip("ray", reason="Ray is an extra of its own: pip install 'storm-edge[ray]'")


def test_a_cluster_answers_what_one_pipeline_answers(trained: Path, library: Path) -> None:
    from storm_edge.batch.on_ray import answer_on_ray

    asking = Asking(str(trained), frames=8, max_tokens=8)
    items = [*read_library(str(library / "table.jsonl"), ["question"]), Item("gone", "/nowhere/gone.mp4", ("Why?",))]
    rows = {row.video: row for rows in answer_on_ray(asking, items, "auto", 1, size=64, gpu=False) for row in rows}
    predictor = Predictor.of(asking)
    for item in items:
        expected = predictor.answer(item)[0]
        got = rows[item.video]
        assert (got.answer, got.error, got.passing) == (expected.answer, expected.error, expected.passing)
        assert tuple(got.timestamps) == expected.timestamps


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "somewhere", "host:port", "host:99999999"])
def test_an_address_without_a_cluster_is_refused(address: str) -> None:
    from storm_edge.batch.on_ray import join

    with pytest.raises(UsageError, match="no Ray cluster answers at"):
        join(address)
