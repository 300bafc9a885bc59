from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storm_edge.runtime.answer import temporal
from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.engine import read_engine
from storm_edge.runtime.bundle.engine_graphs import engine_piece
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import EngineError

Copy = Callable[[Path], Path]


def clip(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 64, 64, 3), dtype=np.uint8)


def test_a_long_clip_goes_through_in_chunks_and_answers_alike(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = clip(23)
    pipeline = load(bundle, threads=1)
    whole = pipeline.open(frames, frames=23)
    assert pipeline.stages.temporal_encoder._pieces is None
    monkeypatch.setattr(temporal, "WHOLE_TEMPORAL_BYTES", 0)
    monkeypatch.setattr(temporal, "chunk_frames", lambda config: config.reduction.temporal_pool)
    chunks = pipeline.open(frames, frames=23)
    assert pipeline.stages.temporal_encoder._pieces is not None
    np.testing.assert_array_equal(whole.rows, chunks.rows)
    assert chunks.ask("what moves?").read() == whole.ask("what moves?").read()


def test_what_verifies_a_stage_keeps_its_tokens(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Bundle.open(bundle)
    stages = Stages.load(opened, read_engine(opened, "cpu-fp32"), threads=1)
    tokens = stages.vision(clip(8))
    before = np.array(tokens)
    monkeypatch.setattr(temporal, "WHOLE_TEMPORAL_BYTES", 0)
    stages.temporal(tokens)
    np.testing.assert_array_equal(tokens, before)
    stages.temporal(tokens, overwrite=True)
    assert not np.array_equal(tokens, before)


def test_verification_compares_the_pieces_with_the_whole(bundle: Path) -> None:
    record = read_engine(Bundle.open(bundle), "cpu-fp32")
    rows = [r for r in record.verification if r.stage == "temporal in chunks"]
    assert {r.metric for r in rows} >= {"cosine"}
    assert all(r.passed for r in rows)
    assert len(record.pieces) == 7
    assert set(record.pieces.values()) <= set(record.files)


def test_a_piece_that_is_not_one_is_refused(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    record = read_engine(opened, "cpu-fp32")
    shutil.copyfile(opened.root / record.pieces["0.enter"], opened.root / record.pieces["0.mix"])
    with pytest.raises(EngineError, match="is refused, it has no input"):
        engine_piece(opened, record, "0.mix")
