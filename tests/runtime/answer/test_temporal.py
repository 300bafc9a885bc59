from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storm_edge.runtime.answer import temporal
from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.answer.temporal import Pieces, TemporalEncoder
from storm_edge.runtime.bundle.engine import read_engine
from storm_edge.runtime.bundle.engine_graphs import engine_piece
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config import sizes
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.sessions.device import HOST, Tensor

Copy = Callable[[Path], Path]


def clip(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def every_clip_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "WHOLE_TEMPORAL_BYTES", 0)
    monkeypatch.setattr(temporal, "chunk_frames", lambda config: config.reduction.temporal_pool)


def test_a_long_clip_goes_through_in_chunks_and_answers_alike(bundle: Path, request: pytest.FixtureRequest) -> None:
    frames = clip(23)
    pipeline = load(bundle, threads=1)
    whole = pipeline.open(frames, frames=23)
    assert pipeline.stages.temporal_encoder._pieces is None
    request.getfixturevalue("every_clip_is_long")
    for options in ({"frames": 23}, {"fps": 1}):
        chunks = pipeline.open(frames, **options)
        assert pipeline.stages.temporal_encoder._pieces is not None
        np.testing.assert_array_equal(whole.rows, chunks.rows)
    assert chunks.ask("what moves?").read() == whole.ask("what moves?").read()


def test_what_verifies_a_stage_keeps_its_tokens(bundle: Path, every_clip_is_long: None) -> None:
    opened = Bundle.open(bundle)
    stages = Stages.load(opened, read_engine(opened, "cpu-fp32"), threads=1)
    tokens = stages.vision(clip(8))
    before = np.array(tokens)
    stages.temporal(tokens)
    np.testing.assert_array_equal(tokens, before)


@pytest.mark.parametrize(("dtype", "error"), [("float16", 1e-2), ("bfloat16", 8e-2)])
def test_long_clips_of_a_half_precision_model_wait_in_its_type(
    bundle: Path, every_clip_is_long: None, monkeypatch: pytest.MonkeyPatch, dtype: str, error: float
) -> None:
    opened = Bundle.open(bundle)
    record = read_engine(opened, "cpu-fp32")
    expected = Stages.load(opened, record, threads=1).temporal(tokens := random_tokens(opened, 24))
    monkeypatch.setattr(temporal, "held_as", lambda bundle, record: dtype)
    stages = Stages.load(opened, record, threads=1)
    gathered = stages.tokens(24)
    gathered.add(tokens)
    blocks = gathered.blocks()
    assert [block.nbytes for block in blocks] == [tokens.nbytes // 2]
    ours = stages.temporal_of(gathered)
    assert ours.dtype == np.float32
    assert np.abs(ours - expected).max() < error * np.abs(expected).max()
    assert np.abs(ours - expected).max() > 0


def test_the_whole_is_gone_before_the_pieces_are_opened(config: StormConfig, every_clip_is_long: None) -> None:
    class Whole:
        device, batch = HOST, 1

        def run(self, **inputs: Tensor) -> dict[str, Tensor]:
            return inputs

    class Opened:
        def run(self, *_: object) -> str:
            return "visual tokens"

    whole = Whole()
    left = weakref.ref(whole)

    def opened() -> Any:
        assert left() is None
        return Opened()

    encoder = TemporalEncoder(whole, Pieces(opened, config))
    del whole
    assert encoder.run([np.zeros((4, 16, 128), np.float32)]) == "visual tokens"


def random_tokens(bundle: Bundle, frames: int) -> np.ndarray:
    shape = (frames, bundle.config.tokens_per_frame, bundle.config.llm.hidden_size)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


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
