from itertools import islice
from pathlib import Path

import pytest

from storm_edge.demo.__main__ import FRAMES, SIZE
from storm_edge.demo.dataset import FPS, make_sample
from storm_edge.demo.items import demo_items
from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.proof.evaluate import evaluate
from storm_edge.runtime.video.encode import encode_video

CHECKPOINT = Path(__file__).parents[2] / "demo" / "checkpoint"


def test_the_committed_checkpoint_is_small() -> None:
    assert sum(file.stat().st_size for file in CHECKPOINT.rglob("*")) <= 10e6


def test_it_answers_held_out_questions_about_time(trained: Path) -> None:
    items = (item for item in demo_items(frames=16, size=64) if item.type.startswith("time/"))
    results = evaluate(load(trained), islice(items, 42), frames=16)
    assert sum(r.right for r in results) >= 36  # of a model that is right 96 times of 100, once in 10,000 runs fewer
    assert len({r.predicted for r in results}) > 10


@pytest.mark.parametrize("kind", ["order", "direction", "change"])
def test_it_answers_about_a_video_file(trained: Path, tmp_path: Path, kind: str) -> None:
    sample = make_sample(2, frames=FRAMES, size=SIZE, kind=kind)
    encode_video(tmp_path / "clip.mp4", sample.frames, fps=FPS)
    video = load(trained).open(tmp_path / "clip.mp4", frames=FRAMES)
    answer = video.ask(sample.question.text, SamplingOptions(max_tokens=16)).read().strip()
    assert answer == sample.question.answer
