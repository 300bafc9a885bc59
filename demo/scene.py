"""Small synthetic clips with a question whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float64]

SIZE = 128  # pixels a side
FPS = 8.0
LENGTH = 32  # frames

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (50, 180, 70),
    "blue": (50, 90, 230),
    "yellow": (240, 210, 50),
    "orange": (245, 140, 30),
    "purple": (150, 60, 190),
    "cyan": (60, 210, 220),
    "white": (245, 245, 245),
}
# Signed distances to the edge, in units of the shape's radius; x points right, y down.
SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": lambda x, y: np.hypot(x, y) - 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) - 0.85,
    "diamond": lambda x, y: (abs(x) + abs(y) - 1.15) / np.sqrt(2),
    "triangle": lambda x, y: np.maximum(y - 0.6, (abs(x) * np.sqrt(3) - y) / 2 - 0.6),
}
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True, eq=False)
class DemoClip:
    """A clip uint8 [frames, SIZE, SIZE, 3], its frames a second, a question about it and the one-word answer."""

    frames: npt.NDArray[np.uint8]
    fps: float
    question: str
    answer: str


def make_clip(seed: int) -> DemoClip:
    """A coloured shape that moves straight over a noisy background for 4 seconds; the same seed gives the same clip."""
    rng = np.random.default_rng(seed)
    colour, shape, direction = (str(rng.choice(list(names))) for names in (COLOURS, SHAPES, DIRECTIONS))
    radius = rng.uniform(0.09, 0.15) * SIZE
    reach = SIZE / 2 - 1.3 * radius  # how far the centre may go from the middle: no shape reaches past 1.2 radii
    along = np.linspace(-1, 1, LENGTH) * reach * rng.uniform(0.6, 1)  # from one side to the other
    across = rng.uniform(-1, 1) * reach
    right, down = DIRECTIONS[direction]
    xs = SIZE / 2 + (along * right if right else np.full(LENGTH, across))
    ys = SIZE / 2 + (along * down if down else np.full(LENGTH, across))
    background = _background(rng)
    frames = [_drawn(background, shape, colour, radius, x, y) for x, y in zip(xs, ys, strict=True)]
    return DemoClip(np.stack(frames), FPS, f"Which way does the {colour} {shape} move?", direction)


def _background(rng: np.random.Generator) -> Plane:
    """Dull blotches and fine grain, [SIZE, SIZE, 3]: darker and greyer than any shape."""
    blotches = np.kron(rng.uniform(40, 90, (SIZE // 16, SIZE // 16, 3)), np.ones((16, 16, 1)))
    grain = rng.normal(0, 8, (SIZE, SIZE, 1))
    return np.asarray(blotches + grain)


def _drawn(background: Plane, shape: str, colour: str, radius: float, x: float, y: float) -> npt.NDArray[np.uint8]:
    """The background with one shape centred at pixel (x, y); edges are blended over one pixel."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    distance = SHAPES[shape]((columns - x) / radius, (rows - y) / radius) * radius  # pixels
    cover = np.clip(0.5 - distance, 0, 1)[..., None]  # [SIZE, SIZE, 1]
    picture = background * (1 - cover) + np.array(COLOURS[colour]) * cover
    return np.rint(picture).clip(0, 255).astype(np.uint8)
