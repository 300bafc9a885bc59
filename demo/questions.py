"""Questions about a scene, and their answers.

Those of TIME_TYPES need several frames, those of CONTROL_TYPES any single one in which everything shows (the last).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from storm_edge.demo.palette import MOVES
from storm_edge.demo.scene import FASTER, Scene, Theme, Thing

TIME_TYPES = ("direction", "order", "bounces", "blinks", "faster", "change", "window")
CONTROL_TYPES = ("colour", "shape", "count")
# The theme in which a type of question always has something to ask about, where there is one.
THEMES: dict[str, Theme] = {
    "order": "appear",
    "faster": "race",
    "window": "flash",
    "direction": "race",
    "bounces": "mixed",
    "blinks": "mixed",
    "change": "mixed",
}
TIMES = ("never", "once", "twice", "three times")
NUMBERS = ("no", "one", "two", "three")


@dataclass(frozen=True)
class Question:
    """A question, its short answer, its type, and all answers that a question of its wording could have."""

    text: str
    answer: str
    type: str
    choices: tuple[str, ...] = ()


def ask(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Every question there is about a scene, each in one of its wordings."""
    return [q for make in (*_OF_ONE, *_OF_PAIRS) for q in make(scene, rng)]


def _pick(rng: np.random.Generator, wordings: tuple[str, ...]) -> str:
    return wordings[int(rng.integers(len(wordings)))]


def _refer(scene: Scene, thing: Thing, rng: np.random.Generator) -> str:
    """A name that means this thing only: mostly colour and shape, else one of them where it is enough."""
    others = [t for t in scene.things if t is not thing]
    if rng.random() < 0.2:
        if all(thing.colour_name not in (t.colour_name, t.turned) for t in others):
            return f"the {thing.colour_name} object"
        if all(t.shape != thing.shape for t in others):
            return f"the {thing.shape}"
    return thing.name


DIRECTION = ("Which way does {} move?", "In which direction does {} go?", "Where is {} heading?")
BOUNCES = ("How often does {} bounce?", "How many times does {} bounce?", "How often does {} turn around?")
BLINKS = ("How often does {} blink?", "How many times does {} blink?", "How often does {} vanish for a moment?")
CHANGE = ("How does {} change?", "What happens to {}?", "What is different about {} at the end?")
FIRST = ("Which object appears first?", "What shows up first?", "Which object is the first to appear?")
LAST = ("Which object appears last?", "What shows up last?", "Which object is the last to appear?")
EARLIER = ("Which appears first, {} or {}?", "Which shows up earlier, {} or {}?")
LATER = ("Which appears later, {} or {}?", "Which shows up after the other, {} or {}?")
QUICK = ("Which is faster, {} or {}?", "Which moves faster, {} or {}?", "Which has the higher speed, {} or {}?")
SLOW = ("Which is slower, {} or {}?", "Which moves more slowly, {} or {}?")
FLASHES_FIRST = ("Which flashes first, {} or {}?", "Which lights up first, {} or {}?")
FLASHES_SECOND = ("Which flashes second, {} or {}?", "Which lights up after the other, {} or {}?")
COLOUR = ("What colour is the {}?", "Which colour does the {} have?")
SHAPE = ("What shape is the {} object?", "Which shape does the {} object have?", "What is the {} object?")
COUNT = ("How many objects are there?", "How many objects can be seen?", "What is the number of objects?")


def _directions(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    for thing in scene.things:
        if thing.kind in MOVES:
            yield Question(_pick(rng, DIRECTION).format(_refer(scene, thing, rng)), thing.kind, "direction")


def _counts(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    for thing in scene.things:
        if thing.kind in ("bounce", "blink"):
            wordings = BOUNCES if thing.kind == "bounce" else BLINKS
            text = _pick(rng, wordings).format(_refer(scene, thing, rng))
            yield Question(text, TIMES[thing.count], thing.kind + "s")


def _changes(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    answers = {"grow": "it grows", "shrink": "it shrinks"}
    for thing in scene.things:
        if thing.kind in ("grow", "shrink", "recolour"):
            answer = answers.get(thing.kind, f"it turns {thing.turned}")
            yield Question(_pick(rng, CHANGE).format(_refer(scene, thing, rng)), answer, "change")


def _appearances(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    things = sorted((t for t in scene.things if t.kind == "appear"), key=lambda t: t.event)
    if len(things) >= 2:
        names = tuple(t.name for t in things)
        yield Question(_pick(rng, FIRST), things[0].name, "order", names)
        yield Question(_pick(rng, LAST), things[-1].name, "order", names)


def _pair(
    kind: str, wordings: tuple[tuple[str, ...], tuple[str, ...]], before: Callable[[Thing, Thing], bool | None]
) -> Callable[[Scene, np.random.Generator], Iterator[Question]]:
    """Both questions about every pair for which `before` says whether the first is the answer to the first wording."""

    def make(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
        for a, b in combinations(scene.things, 2):
            a_wins = before(a, b)
            if a_wins is None:
                continue
            for wording, answer in zip(wordings, (a, b) if a_wins else (b, a), strict=True):
                pair = (a, b) if rng.random() < 0.5 else (b, a)
                text = _pick(rng, wording).format(pair[0].name, pair[1].name)
                yield Question(text, answer.name, kind, (pair[0].name, pair[1].name))

    return make


def _both(a: Thing, b: Thing, kind: str) -> bool:
    return a.kind == kind and b.kind == kind


def _faster(a: Thing, b: Thing) -> bool | None:
    if a.kind not in MOVES or b.kind not in MOVES or max(a.speed, b.speed) < FASTER * min(a.speed, b.speed):
        return None
    return a.speed > b.speed


def _colours(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    for thing in scene.things:
        if thing.kind != "recolour" and all(t.shape != thing.shape for t in scene.things if t is not thing):
            yield Question(_pick(rng, COLOUR).format(thing.shape), thing.colour_name, "colour")


def _shapes(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    for thing in scene.things:
        others = [t for t in scene.things if t is not thing]
        if thing.kind != "recolour" and all(thing.colour_name not in (t.colour_name, t.turned) for t in others):
            yield Question(_pick(rng, SHAPE).format(thing.colour_name), f"a {thing.shape}", "shape")


def _count(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    yield Question(_pick(rng, COUNT), NUMBERS[len(scene.things)], "count")


_OF_ONE = (_directions, _counts, _changes, _appearances, _colours, _shapes, _count)
_OF_PAIRS = (
    _pair("order", (EARLIER, LATER), lambda a, b: a.event < b.event if _both(a, b, "appear") else None),
    _pair("faster", (QUICK, SLOW), _faster),
    _pair("window", (FLASHES_FIRST, FLASHES_SECOND), lambda a, b: a.event < b.event if _both(a, b, "flash") else None),
)
