"""Scenes: up to three objects in lanes of their own, and what each does over the frames of a clip.

Nothing here is a picture yet: positions and sizes are in units of the frame's side, x to the right and y down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from storm_edge.demo.palette import COLOURS, FLASH, MOVES, SHAPES, Split, combinations

Floats = npt.NDArray[np.float32]
Theme = Literal["mixed", "race", "appear", "flash", "still"]

LANES = 3
POOL = 4  # flashes fall into one window of so many frames: what temporal pooling averages
FASTER = 1.6  # least ratio of two speeds that are compared
_MIXED = ("move", "bounce", "blink", "recolour", "grow", "shrink", "still")
_MIXED_SHARE = (0.14, 0.25, 0.25, 0.1, 0.09, 0.09, 0.08)


@dataclass(frozen=True, eq=False)
class Thing:
    """One object over T frames: x, y, radius (T,), colour (T, 3) in 0..255, visible (T,); and what it does.

    `count` is of bounces or blinks, `event` the frame of its flash, appearance, change or start, `speed` in frame sides
    a frame, `turned` the colour after a change. `done` (T,) is how many bounces or blinks are over by each frame.
    """

    shape: str
    colour_name: str
    kind: str
    x: Floats
    y: Floats
    radius: Floats
    colour: Floats
    visible: npt.NDArray[np.bool_]
    count: int = 0
    event: int = 0
    speed: float = 0.0
    turned: str = ""
    done: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def name(self) -> str:
        """How questions and answers call it: by its colour at the start and its shape."""
        return f"the {self.colour_name} {self.shape}"


@dataclass(frozen=True, eq=False)
class Scene:
    """The things of a clip of `frames` frames, and the picture around them: background style, grain, camera shake."""

    frames: int
    things: tuple[Thing, ...]
    seed: int  # of everything that no question is about


def sample_scene(rng: np.random.Generator, frames: int, split: Split, theme: Theme | None = None) -> Scene:
    """Draws a scene of `frames` frames, 8 or more (any number for the theme "still")."""
    if theme is None:
        themes: tuple[Theme, ...] = ("mixed", "race", "appear", "flash")
        theme = themes[_choose(rng, (0.48, 0.18, 0.14, 0.2))]
    axis = int(rng.integers(2))  # 0: lanes are rows, things move in x; 1: the other way
    number = int(rng.integers(1 if theme in ("mixed", "still") else 2, LANES + 1))
    moves = ("left", "right") if axis == 0 else ("up", "down")
    if theme == "mixed":
        families = [_MIXED[_choose(rng, _MIXED_SHARE)] for _ in range(number)]
    elif theme == "flash":
        families = ["flash", "flash", *("bounce", "blink", "move", "still")[int(rng.integers(4)) :][: number - 2]]
    else:
        families = [{"race": "move"}.get(theme, theme)] * number
    kinds = [moves[int(rng.integers(2))] if f == "move" else f for f in families]
    looks = _looks(rng, kinds, split)
    events = _events(rng, theme, frames, number)
    lanes = rng.permutation(LANES)[:number]
    while True:
        things = tuple(
            _thing(rng, frames, axis, int(lanes[i]), kinds[i], *looks[i], events[i], looks) for i in range(number)
        )
        if theme != "race" or _ratio(things[0], things[1]) >= FASTER:
            break
    order = rng.permutation(number)
    return Scene(frames, tuple(things[i] for i in order), int(rng.integers(2**31)))


def _choose(rng: np.random.Generator, shares: tuple[float, ...]) -> int:
    return int(np.searchsorted(np.cumsum(shares), rng.random() * sum(shares)))


def _ratio(a: Thing, b: Thing) -> float:
    return max(a.speed, b.speed) / min(a.speed, b.speed)


_pairs = cache(combinations)


def _looks(rng: np.random.Generator, kinds: list[str], split: Split) -> list[tuple[str, str]]:
    """A (colour, shape) for every kind, no two alike."""
    while True:
        looks = [(pairs := _pairs(kind, split))[int(rng.integers(len(pairs)))] for kind in kinds]
        if len(set(looks)) == len(looks):
            return looks


def _events(rng: np.random.Generator, theme: Theme, frames: int, number: int) -> list[int]:
    """Frames of appearances or flashes, in no order; -1 where each thing draws its own."""
    events = [-1] * number
    if theme == "appear":
        gap = 2 if frames >= 16 else 1
        room = frames - 3 - gap * (number - 1)
        times = np.sort(rng.integers(0, room + 1, number)) + gap * np.arange(number) + 1
        return [int(t) for t in rng.permutation(times)]
    if theme == "flash":
        window = POOL * int(rng.integers(frames // POOL))
        events[:2] = [window + int(i) for i in rng.permutation(POOL)[:2]]
    return events


def _thing(
    rng: np.random.Generator,
    frames: int,
    axis: int,
    lane: int,
    kind: str,
    colour_name: str,
    shape: str,
    event: int,
    looks: list[tuple[str, str]],
) -> Thing:
    t = np.arange(frames, dtype=np.float32)
    base = rng.uniform(0.085, 0.1 if kind == "grow" else 0.13)
    if kind == "shrink":
        base = rng.uniform(0.115, 0.14)
    along = np.full(frames, rng.uniform(0.15, 0.85), np.float32)
    radius = np.full(frames, base, np.float32)
    tint = rng.normal(0, 9, 3)
    colour = np.tile(np.clip(COLOURS[colour_name] + tint, 0, 255).astype(np.float32), (frames, 1))
    visible = np.ones(frames, bool)
    done = np.zeros(frames, np.int64)
    count, speed, turned = 0, 0.0, ""
    most = 3 if frames >= 12 else 2
    if kind in MOVES:
        steps = int(rng.integers(max(4, min(frames // 3, 12)), min(frames - 1, 24) + 1))
        event = int(rng.integers(0, frames - steps))
        distance = rng.uniform(0.22, 0.68)
        speed = distance / steps
        sign = sum(MOVES[kind])
        low = rng.uniform(0.15, 0.85 - distance)
        done_share = np.clip((t - event) / steps, 0, 1)
        along = (low + distance * (done_share if sign > 0 else 1 - done_share)).astype(np.float32)
    elif kind == "bounce":
        count = int(rng.integers(1, most + 1))
        leg = rng.uniform(2.2, max(2.2, min((frames - 1) / (count + 1), 8.0)))
        start = rng.uniform(0, frames - 1 - (count + 1) * leg)
        distance = rng.uniform(0.3, 0.66)
        phase = np.clip((t - start) / leg, 0, count + 1)
        wave = 1 - abs(1 - phase % 2)
        low = rng.uniform(0.15, 0.85 - distance)
        along = (low + distance * (wave if rng.random() < 0.5 else 1 - wave)).astype(np.float32)
        # A turn shows once the thing is on its way back.
        done = np.clip(np.floor(phase - 0.2), 0, count).astype(np.int64)
    elif kind == "blink":
        count = int(rng.integers(1, most + 1))
        visible, done = _blinks(rng, frames, count)
    elif kind == "recolour":
        event = int(rng.integers(frames // 4, frames - frames // 4))
        shown = {c for c, s in looks if s == shape} | {colour_name}
        free = [c for c in COLOURS if c not in shown]
        turned = free[int(rng.integers(len(free)))]
        colour[event:] = np.clip(COLOURS[turned] + tint, 0, 255)
    elif kind in ("grow", "shrink"):
        event = int(rng.integers(frames // 4, frames - frames // 4))
        factor = 1.55 if kind == "grow" else 1 / 1.55
        radius = (radius * factor ** np.clip((t - event + 1) / 2, 0, 1)).astype(np.float32)
    elif kind == "appear":
        visible = t >= event
    elif kind == "flash":
        colour[event] = FLASH
        radius[event] *= 1.15
    across = np.full(frames, (lane + 0.5) / LANES + rng.uniform(-0.02, 0.02), np.float32)
    x, y = (along, across) if axis == 0 else (across, along)
    return Thing(shape, colour_name, kind, x, y, radius, colour, visible, count, max(event, 0), speed, turned, done)


def _blinks(rng: np.random.Generator, frames: int, count: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """`count` gaps in an object's visibility (T,), and how many are over by each frame (T,)."""
    apart = 2 if frames >= 16 else 1
    off = rng.integers(1, 3 if frames >= 16 else 2, count)
    spare = frames - 2 - int(off.sum()) - apart * (count - 1)
    cuts = np.sort(rng.integers(0, spare + 1, count))  # how much of the spare time lies before each gap
    visible, done = np.ones(frames, bool), np.zeros(frames, np.int64)
    used = 1
    for i in range(count):
        start = used + int(cuts[i]) + apart * i
        visible[start : start + off[i]] = False
        done[start + off[i] :] += 1
        used += int(off[i])
    return visible, done


SHAPE_NAMES, COLOUR_NAMES = tuple(SHAPES), tuple(COLOURS)
