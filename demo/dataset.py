"""The demo's data: endless clips with questions, each named by split and seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from storm_edge.demo.palette import Split
from storm_edge.demo.questions import CONTROL_TYPES, THEMES, TIME_TYPES, Question, ask
from storm_edge.demo.render import render
from storm_edge.demo.scene import Scene, sample_scene
from storm_edge.runtime.errors import UsageError

TYPES = (*TIME_TYPES, *CONTROL_TYPES)
FPS = 8.0  # of encoded clips
MIN_FRAMES = 8


@dataclass(frozen=True, eq=False)
class Sample:
    """A clip uint8 [frames, size, size, 3] with one question about it."""

    frames: npt.NDArray[np.uint8]
    question: Question
    scene: Scene


def make_sample(seed: int, *, frames: int, size: int = 64, split: Split = "test", kind: str | None = None) -> Sample:
    """The clip and the question that belong to a seed; `kind` is the question's type, one of TYPES, or any.

    The same arguments give the same bytes. Raises UsageError for a number of frames in which not everything happens.
    """
    if frames < MIN_FRAMES:
        raise UsageError(f"{frames} frames are too few for the demo's questions: take {MIN_FRAMES} or more.")
    rng = np.random.default_rng([seed, frames, split == "test"])
    theme = THEMES.get(kind) if kind else None
    while True:
        scene = sample_scene(rng, frames, split, theme)
        questions = [q for q in ask(scene, rng) if kind is None or q.type == kind]
        if questions:
            return Sample(render(scene, size), questions[int(rng.integers(len(questions)))], scene)


def samples(*, frames: int, size: int = 64, split: Split = "test", first: int = 0) -> Iterator[Sample]:
    """Clips without end, from seed `first` on; the types of question take turns."""
    for seed in count(first):
        yield make_sample(seed, frames=frames, size=size, split=split, kind=TYPES[seed % len(TYPES)])
