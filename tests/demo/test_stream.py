from __future__ import annotations

import os
import threading
from typing import IO

import numpy as np

from storm_edge.demo.dataset import make_sample
from storm_edge.demo.stream import SCENE, SHOWN, SIZE, SceneStream
from storm_edge.runtime.video.live import Following, live_source


def test_its_frames_are_those_of_the_seeds_one_after_another() -> None:
    stream = SceneStream(first=5)
    for scene in (0, 1):
        sample = make_sample(5 + scene, frames=SCENE, size=SIZE, kind="count")
        np.testing.assert_array_equal(stream.frame(scene * SCENE + 3), sample.frames[3])


def test_what_is_played_comes_out_of_a_pipe_with_its_times() -> None:
    stream = SceneStream(fps=20)
    out, into = os.pipe()
    player = threading.Thread(target=_played, args=(stream, os.fdopen(into, "wb", buffering=0)))
    player.start()
    with os.fdopen(out, "rb") as pipe:
        shots = list(Following(live_source(pipe, SIZE), SIZE, 20 * SHOWN).shots())
    player.join()
    np.testing.assert_allclose([shot.time for shot in shots], np.arange(24 * SHOWN) / (20 * SHOWN), atol=1e-4)
    for shot in shots:
        assert np.abs(shot.frame.astype(int) - stream.frame(stream.number(shot.time))).mean() < 12


def _played(stream: SceneStream, pipe: IO[bytes]) -> None:
    with pipe:
        stream.play(pipe, 24)


def test_the_truth_is_that_of_the_window_and_unknown_between_scenes() -> None:
    stream = SceneStream(fps=4)
    whole = make_sample(0, frames=SCENE, size=SIZE, kind="count").question.answer
    assert stream.truth(0, (SCENE - 1) / 4) == whole
    assert stream.truth(1, SCENE / 4) == ""
    appearing = next(s for s in range(99) if stream.truth(s * SCENE / 4, s * SCENE / 4) == "")
    assert stream.truth(appearing * SCENE / 4, (appearing * SCENE + SCENE - 1) / 4) in ("one", "two", "three")
