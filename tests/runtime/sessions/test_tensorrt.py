"""Encoders on a GPU whose work is done late, held against the same graphs on the CPU."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from storm_edge.runtime.answer import temporal
from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config import sizes
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (22, 64, 64, 3), dtype=np.uint8)


def on_the_cpu(bundle: Bundle, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (T, N, D) and visual tokens of the canonical graphs; a whole number of groups of frames."""
    vision, temporal = (OnnxRuntimeSession(bundle.graph(stage)) for stage in ("vision", "temporal"))
    tokens = np.concatenate([vision.run(frames=frames[i : i + 8])["tokens"] for i in range(0, len(frames), 8)])
    filled = np.concatenate([tokens, np.repeat(tokens[-1:], -len(frames) % 4, axis=0)])
    return tokens, temporal.run(tokens=filled[None])["visual_tokens"]


def test_no_work_overtakes_another_between_frames_and_visual_tokens(
    machine: Any, engines: Any, frames: np.ndarray
) -> None:
    opened, record = engines()
    stages = Stages.load(opened, record)
    tokens = stages.vision(frames)
    visual = stages.temporal(tokens)
    expected = on_the_cpu(opened, frames)
    np.testing.assert_allclose(stages.device.host(visual), expected[1], atol=1e-4)
    np.testing.assert_allclose(stages.device.host(tokens), expected[0], atol=1e-4)


def test_the_host_does_not_wait_before_it_reads(machine: Any, engines: Any, frames: np.ndarray) -> None:
    opened, record = engines()
    stages = Stages.load(opened, record)
    visual = stages.temporal(stages.vision(frames))
    assert sum(stream.synchronized for stream in machine.gpu.streams.values()) == 0
    stages.device.host(visual)
    assert sum(stream.synchronized for stream in machine.gpu.streams.values()) == 1


def test_numpys_functions_are_not_asked_of_arrays_on_the_gpu(machine: Any, engines: Any, frames: np.ndarray) -> None:
    opened, record = engines()
    stages = Stages.load(opened, record)
    stages.device.host(stages.temporal(stages.vision(frames)))
    assert machine.gpu.dispatched == []


def test_a_later_run_leaves_what_an_earlier_one_gave(machine: Any, engines: Any, frames: np.ndarray) -> None:
    opened, record = engines()
    stages = Stages.load(opened, record)
    first = stages.vision(frames[:8])
    stages.device.host(stages.vision(frames[8:16]))
    np.testing.assert_allclose(stages.device.host(first), on_the_cpu(opened, frames[:8])[0], atol=1e-4)


def test_the_vision_batch_is_what_the_engine_was_tuned_for(machine: Any, engines: Any) -> None:
    opened, record = engines()
    assert Stages.load(opened, record).batch == 8


@pytest.mark.parametrize("stage", ["vision", "temporal", "decoder"])
def test_one_stage_may_run_on_the_cpu_beside_the_gpu(
    machine: Any, engines: Any, frames: np.ndarray, stage: str
) -> None:
    opened, record = engines(**{stage: "onnxruntime-cpu"})
    stages = Stages.load(opened, record)
    visual = stages.temporal(stages.vision(frames))
    expected = on_the_cpu(opened, frames)[1]
    np.testing.assert_allclose(stages.device.host(visual), expected, atol=1e-4)
    rows = stages.generator.device.host(stages.rows(visual, None))
    np.testing.assert_allclose(rows, expected[0].reshape(rows.shape), atol=1e-4)


def test_more_frames_than_an_engine_takes_are_one_line_that_says_what_to_do(
    machine: Any, engines: Any, frames: np.ndarray
) -> None:
    opened, record = engines()
    stages = Stages.load(opened, record)
    with pytest.raises(EngineError, match=r"takes tokens from \[1, 4, .* to \[1, 64, .*larger --max-frames") as error:
        stages.temporal(np.zeros((80, 16, 128), np.float32))
    assert "\n" not in str(error.value)


def test_a_long_clip_goes_through_pieces_that_take_the_wholes_place(
    machine: Any, engines: Any, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, record = engines(pieces=True)
    of_8_frames = 8 * 16 * opened.config.d_inner * 4 * 6  # so that the last chunk is shorter
    monkeypatch.setattr(sizes, "TEMPORAL_CHUNK_BYTES", of_8_frames)
    stages = Stages.load(opened, record)
    expected = on_the_cpu(opened, frames)[1]
    np.testing.assert_allclose(stages.device.host(stages.temporal(stages.vision(frames))), expected, atol=1e-4)
    monkeypatch.setattr(sizes, "WHOLE_TEMPORAL_BYTES", 0)
    whole = weakref.ref(stages.temporal_encoder._whole)
    clip = stages.tokens(22)
    for at in range(0, 22, 8):
        clip.add(stages.vision(frames[at : at + 8]))
    visual = stages.temporal_of(clip)
    assert whole() is None
    assert sum(stream.synchronized for stream in machine.gpu.streams.values()) == 1
    np.testing.assert_allclose(stages.device.host(visual), expected, atol=1e-4)
    assert machine.gpu.dispatched == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_long_clip_waits_in_half_precision_on_a_gpu(
    machine: Any, engines: Any, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    opened, record = engines(pieces=True)
    monkeypatch.setattr(sizes, "WHOLE_TEMPORAL_BYTES", 0)
    monkeypatch.setattr(temporal, "held_as", lambda bundle, record: dtype)
    stages = Stages.load(opened, record)
    clip = stages.tokens(22)
    clip.add(stages.vision(frames))
    assert [block.dtype.name for block in clip.blocks()] == ["uint16" if dtype == "bfloat16" else "float16"]
    visual = stages.device.host(stages.temporal_of(clip))
    expected = on_the_cpu(opened, frames)[1]
    assert 0 < np.abs(visual - expected).max() < (8e-2 if dtype == "bfloat16" else 1e-2) * np.abs(expected).max()
