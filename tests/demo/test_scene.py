from collections import Counter

import numpy as np
import pytest

from storm_edge.demo.dataset import TYPES, make_sample, samples
from storm_edge.demo.palette import COLOURS, KINDS, SHAPES, Split, combinations
from storm_edge.demo.questions import ask
from storm_edge.demo.render import render
from storm_edge.demo.scene import FASTER, POOL, sample_scene
from storm_edge.runtime.errors import UsageError


def test_the_two_splits_share_no_combination_and_hold_them_all() -> None:
    for kind in KINDS:
        train, test = combinations(kind, "train"), combinations(kind, "test")
        assert not set(train) & set(test)
        assert len(train) + len(test) == len(COLOURS) * len(SHAPES)
        assert len(test) == len(SHAPES)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_clip_holds_only_combinations_of_its_split(split: Split) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        for thing in sample_scene(rng, 16, split).things:
            assert (thing.colour_name, thing.shape) in combinations(thing.kind, split)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_question_can_be_asked_for_and_seeds_repeat(kind: str) -> None:
    one, same, other = (make_sample(seed, frames=8, kind=kind) for seed in (5, 5, 6))
    assert one.question.type == kind
    assert one.question == same.question
    assert np.array_equal(one.frames, same.frames)
    assert not np.array_equal(one.frames, other.frames)
    assert one.frames.shape == (8, 64, 64, 3)
    assert one.frames.dtype == np.uint8


def test_the_types_take_turns() -> None:
    stream = samples(frames=8)
    assert [next(stream).question.type for _ in TYPES] == list(TYPES)


def test_answers_of_a_kind_are_spread() -> None:
    rng = np.random.default_rng(1)
    questions = [q for _ in range(400) for q in ask(sample_scene(rng, 16, "train"), rng)]
    for kind, most in {"direction": 0.35, "bounces": 0.45, "blinks": 0.45, "faster": 0.1, "window": 0.1}.items():
        answers = Counter(q.answer for q in questions if q.type == kind)
        assert max(answers.values()) / answers.total() < most, kind
    texts = {q.text for q in questions}
    assert len(texts) > 500


def test_which_of_a_pair_is_named_first_says_nothing() -> None:
    rng = np.random.default_rng(2)
    named = [q for _ in range(400) for q in ask(sample_scene(rng, 16, "train"), rng) if q.type in ("window", "faster")]
    share = np.mean([q.answer == q.choices[0] for q in named])
    assert 0.42 < share < 0.58


def test_flashes_fall_into_one_pooling_window_at_different_frames() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        a, b = (t.event for t in sample_scene(rng, 32, "test", "flash").things if t.kind == "flash")
        assert a != b
        assert a // POOL == b // POOL


def test_the_pictures_show_what_the_answers_say() -> None:
    """Reads directions, speeds, blinks and bounces back from the pixels of scenes with one thing of its colour."""
    rng = np.random.default_rng(4)
    checked: Counter[str] = Counter()
    for _ in range(80):
        scene = sample_scene(rng, 32, "train")
        frames = render(scene, 64).astype(int)
        for thing in scene.things:
            others = [t for t in scene.things if t is not thing]
            if any(t.colour_name == thing.colour_name for t in others) or thing.kind not in ("left", "up", "blink"):
                continue
            alike = abs(frames - thing.colour[0]).max(-1) < 45  # (T, 64, 64)
            lit = alike.sum((1, 2)) > 12
            if thing.kind == "blink":
                gaps = np.flatnonzero(np.diff(np.r_[1, lit.astype(int)]) == -1)
                checked["blink"] += len(gaps) == thing.count
                checked["blinks"] += 1
            else:
                axis = 2 if thing.kind == "left" else 1
                place = [np.argwhere(alike[t])[:, axis - 1].mean() for t in (0, -1)]
                checked["moved"] += place[1] < place[0] - 6
                checked["moves"] += 1
    assert checked["blinks"] > 10
    assert checked["moves"] > 10
    # Colours come close to each other by chance and blur at edges, so single readings may fail.
    assert checked["blink"] / checked["blinks"] > 0.85
    assert checked["moved"] / checked["moves"] > 0.85


def test_a_race_has_two_speeds_that_differ() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        speeds = [t.speed for t in sample_scene(rng, 16, "train", "race").things]
        assert max(speeds) / min(speeds) >= FASTER


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(UsageError, match="take 8 or more"):
        make_sample(0, frames=4)
