"""What demo videos are made of, and which combinations the training never sees.

A combination is (shape, colour, kind of behaviour). One in eight is held out: for every shape and kind exactly one
colour. Training clips hold only the others, test clips only these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]
Split = Literal["train", "test"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 35),
    "green": (45, 175, 60),
    "blue": (50, 85, 235),
    "yellow": (240, 220, 45),
    "orange": (245, 130, 20),
    "purple": (140, 50, 190),
    "cyan": (50, 215, 220),
    "pink": (250, 150, 200),
}
FLASH = (255, 255, 255)


def _distance(x: Plane, y: Plane) -> Plane:
    distance: Plane = np.hypot(x, y)
    return distance


def _ring(x: Plane, y: Plane) -> Plane:
    edge: Plane = np.abs(_distance(x, y) - np.float32(0.8)) - np.float32(0.28)
    return edge


def _circle(x: Plane, y: Plane) -> Plane:
    edge: Plane = _distance(x, y) - np.float32(1)
    return edge


def _square(x: Plane, y: Plane) -> Plane:
    edge: Plane = np.maximum(abs(x), abs(y)) - np.float32(0.88)
    return edge


def _triangle(x: Plane, y: Plane) -> Plane:
    edge: Plane = np.maximum(y - np.float32(0.7), (abs(x) * np.float32(1.732) - y) / 2 - np.float32(0.6))
    return edge


def _cross(x: Plane, y: Plane) -> Plane:
    long, short = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    edge: Plane = np.maximum(long - np.float32(1.1), short - np.float32(0.36))
    return edge


# Signed distances to the edge, in units of the shape's radius; x points right, y down. None reaches past 1.2 radii.
SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
}
MOVES: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
KINDS = (*MOVES, "bounce", "blink", "recolour", "grow", "shrink", "appear", "flash", "still")


def held_out(shape: str, colour: str, kind: str) -> bool:
    """Whether the combination is kept for the test split."""
    s, c, k = list(SHAPES).index(shape), list(COLOURS).index(colour), KINDS.index(kind)
    return (c + 3 * s + 5 * k) % len(COLOURS) == 0


def combinations(kind: str, split: Split) -> list[tuple[str, str]]:
    """The (colour, shape) pairs that behave as `kind` in a split."""
    return [(c, s) for s in SHAPES for c in COLOURS if held_out(s, c, kind) == (split == "test")]
