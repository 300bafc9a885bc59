from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storm_edge.runtime import SamplingOptions, load
from storm_edge.runtime.answer.encoding import EncodedFrames
from storm_edge.runtime.answer.stages import Encoders
from storm_edge.runtime.answer.temporal import TemporalEncoder
from storm_edge.runtime.answer.token_ring import TokenRing
from storm_edge.runtime.answer.watch import Watch
from storm_edge.runtime.errors import UsageError, VideoError
from storm_edge.runtime.sessions.device import HOST, Device
from storm_edge.runtime.video.live import Following, live_source
from storm_edge.runtime.video.resizing import Pixels

SHORT = SamplingOptions(max_tokens=6)


@dataclass
class Vision:
    """A session that takes its time; its tokens are the levels of its frames."""

    seconds: float = 0.0
    device: Device = HOST
    batch: int = 4

    def run(self, **inputs: Any) -> dict[str, Any]:
        time.sleep(self.seconds)
        return {"tokens": inputs["frames"][:, :1, 0, :1].astype(np.float32)}


class Clip:
    """Answers with the levels of its frames."""

    def __init__(self, encoded: EncodedFrames) -> None:
        count = encoded.tokens.count
        self.levels = np.concatenate(encoded.tokens.blocks())[:count, 0, 0].tolist()

    def ask(self, question: str, options: object = None) -> Any:
        return self.levels


def watched(vision: Vision, pairs: Iterator[tuple[float, Pixels]], fps: float = 1000, window: int = 6) -> Watch:
    encoders = Encoders(vision, TemporalEncoder(Vision()), 4)
    return Watch(Following(live_source(pairs, 4), 4, fps), encoders, window, Clip)


def paced(count: int, period: float) -> Iterator[tuple[float, Pixels]]:
    for i in range(count):
        yield i * period, np.full((4, 4, 3), i, np.uint8)
        time.sleep(period)


def test_an_answer_is_about_the_last_frames_and_says_how_old_they_are() -> None:
    with watched(Vision(), paced(11, 0.03)) as watch:
        assert watch.wait(11, timeout=10)
        levels, moment = watch.ask("?")
    assert levels == [5, 6, 7, 8, 9, 10]
    np.testing.assert_allclose(moment.timestamps, np.arange(5, 11) * 0.03)
    assert (moment.seen, moment.dropped, moment.lost) == (11, 0, "")
    assert 0 <= moment.age < 1


def test_of_a_stream_that_is_faster_than_the_model_frames_are_dropped_evenly() -> None:
    with watched(Vision(seconds=0.1), paced(60, 0.03), window=60) as watch:
        assert not watch.wait(61, timeout=20)
        levels, moment = watch.ask("?")
    gaps = np.diff(levels)
    assert moment.seen + moment.dropped == 60
    assert moment.dropped > 20
    assert levels[-1] == 59
    assert gaps.max() <= 2 * gaps.mean() + 1  # one period is the least that a busy machine may be late


def test_before_the_first_frame_there_is_nothing_to_answer_about() -> None:
    def late() -> Iterator[tuple[float, Pixels]]:
        time.sleep(0.3)
        yield from paced(1, 0)

    with watched(Vision(), late()) as watch:
        with pytest.raises(VideoError, match="no frame of the iterator has come yet"):
            watch.ask("?")
        assert watch.wait(timeout=10)


def test_what_ends_the_source_is_told_to_who_asks() -> None:
    with watched(Vision(), iter([(0.0, np.zeros((4, 4), np.uint8))])) as watch:
        with pytest.raises(UsageError, match="frame 0 is uint8"):
            watch.wait(timeout=10)
        assert watch.ended


def test_the_ring_gives_its_frames_in_order_wherever_it_stands() -> None:
    encoders = Encoders(Vision(), TemporalEncoder(Vision()), 4)
    ring = TokenRing(HOST, 5)
    for i in range(17):
        ring.add(np.full((1, 1, 1), i, np.float32), float(i))
        clip = encoders.tokens(len(ring))
        times = ring.copy(clip)
        assert times.tolist() == list(range(max(i - 4, 0), i + 1))
        assert np.concatenate(clip.blocks())[: clip.count, 0, 0].tolist() == times.tolist()


@pytest.mark.parametrize("window", [0, -1, 1.5, 10**9])
def test_a_window_that_makes_no_sense_is_refused(bundle: Path, window: int) -> None:
    with pytest.raises(UsageError):
        load(bundle).watch([], window=window)


def test_an_answer_is_what_the_same_frames_give_as_a_video(bundle: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (14, 48, 80, 3), dtype=np.uint8)
    pairs = [(float(i), frame) for i, frame in enumerate(frames)]
    pipeline = load(bundle)

    def slowly() -> Iterator[tuple[float, Pixels]]:
        time.sleep(0.2)
        for pair in pairs:
            seen = int(pair[0])
            while seen and not watch.wait(seen, timeout=1):
                pass
            yield pair

    with pipeline.watch(slowly(), fps=1, window=8) as watch:
        for count in (5, 14):
            assert watch.wait(count, timeout=60)
            answer, moment = watch.ask("What happens?", SHORT)
            answer.read()
            last = moment.seen
            same = load(bundle).open(iter(pairs[max(last - 8, 0) : last]), fps=1).ask("What happens?", SHORT)
            same.read()
            assert answer._generation.ids == same._generation.ids
            assert moment.dropped == 0
            assert answer.stats.frames == min(last, 8)
        again, _ = watch.ask("And now?", SHORT)
        assert again.stats.reused_tokens > again.stats.visual_tokens
