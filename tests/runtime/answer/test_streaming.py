from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.initialize import initialize
from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.engine import read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.errors import EngineError, UsageError
from storm_edge.runtime.machine.targets import target


@pytest.fixture(scope="module")
def forward(tmp_path_factory: pytest.TempPathFactory, config: StormConfig) -> Stages:
    """The loaded engine of a model that looks forward only."""
    folder = tmp_path_factory.mktemp("forward")
    temporal = config.temporal.model_copy(update={"bidirectional": False})
    initialize(config.model_copy(update={"temporal": temporal}), folder / "checkpoint")
    export_bundle(folder / "checkpoint", folder / "bundle")
    bundle = Bundle.open(folder / "bundle")
    return Stages.load(bundle, build(bundle, target("cpu"), BuildOptions()), threads=1)


def tokens(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, 16, 128), np.float32)


def close(ours: Any, offline: Any) -> None:
    np.testing.assert_allclose(ours, offline, atol=1e-5 * np.abs(offline).max(), rtol=0)


@pytest.mark.parametrize("steps", [[1] * 11, [3, 5, 0, 2, 1], [11]])
def test_frames_as_they_come_give_what_the_clip_gives_at_once(forward: Stages, steps: list[int]) -> None:
    clip = tokens(11)
    offline = np.array(forward.temporal(clip))
    stream, found, at = forward.stream(), [], 0
    for n in steps:
        visual = stream.add(clip[at : at + n])
        at += n
        assert sum(part.shape[1] for part in found) + (visual is not None and visual.shape[1]) == at // 4
        if visual is not None:
            found.append(visual)
    close(np.concatenate(found, axis=1), offline[:, :2])
    close(stream.finish(), offline[:, 2:])
    close(stream.add(tokens(4, seed=1)), forward.temporal(tokens(4, seed=1)))  # another video


def test_streams_that_share_an_encoder_do_not_see_each_other(forward: Stages) -> None:
    clips = [tokens(8, seed) for seed in (1, 2)]
    streams = [forward.stream() for _ in clips]
    found: list[list[Any]] = [[], []]
    for at in range(8):
        for i, (stream, clip) in enumerate(zip(streams, clips, strict=True)):
            if (visual := stream.add(clip[at : at + 1])) is not None:
                found[i].append(visual)
    for clip, parts in zip(clips, found, strict=True):
        close(np.concatenate(parts, axis=1), forward.temporal(clip))


def test_a_long_piece_of_a_live_video_goes_through_in_chunks_and_holds_no_more_than_a_group(forward: Stages) -> None:
    clip = tokens(150)
    stream = forward.stream()
    close(stream.add(clip), forward.temporal(clip)[:, :37])
    assert stream._group is not None
    assert stream._group.shape == (1, 4 * 16, 128)
    assert stream.finish() is not None
    assert stream.finish() is None


def test_a_call_that_failed_can_be_repeated(forward: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tokens(8)
    stream = forward.stream()
    stream.add(clip[:3])
    with monkeypatch.context() as patch:

        def fail(mixed: Any) -> Any:
            raise EngineError("no memory")

        patch.setattr(stream._pieces, "pool", fail)
        with pytest.raises(EngineError, match="no memory"):
            stream.add(clip[3:])
    close(stream.add(clip[3:]), forward.temporal(clip))


def test_a_model_that_looks_backwards_cannot_follow_a_live_video(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    stages = Stages.load(opened, read_engine(opened, "cpu-fp32"), threads=1)
    with pytest.raises(UsageError, match="cannot follow a live video: use a checkpoint"):
        stages.stream()
    assert stages.temporal_encoder._pieces is None
