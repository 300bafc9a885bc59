"""The demo's held-out questions as items of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator

from storm_edge.demo.dataset import Sample, samples
from storm_edge.demo.questions import TIME_TYPES
from storm_edge.runtime.proof.evaluate import Item

FRAMES = 16  # of a clip, unless others are asked for


def demo_items(*, frames: int, size: int) -> Iterator[Item]:
    """Questions of the test split without end, a clip each; their types are "time/..." and "control/..."."""
    for seed, sample in enumerate(samples(frames=frames, size=size)):
        yield demo_item(seed, sample)


def demo_item(seed: int, sample: Sample) -> Item:
    """The item of one sample."""
    group = "time" if sample.question.type in TIME_TYPES else "control"
    return Item(
        f"demo-{len(sample.frames)}-{seed}",
        sample.frames,
        sample.question.text,
        sample.question.answer,
        f"{group}/{sample.question.type}",
    )
