"""Training batches: clips, the token ids of their questions, and labels of single visual tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from storm_edge.demo.palette import MOVES
from storm_edge.demo.questions import TIME_TYPES, Question, ask
from storm_edge.demo.render import render
from storm_edge.demo.scene import COLOUR_NAMES, SHAPE_NAMES, Scene, Thing, sample_scene
from storm_edge.demo.training.model import AUXILIARY, PLACES, SPEED_BINS
from storm_edge.runtime.llm.prompt import ChatPrompt, Message

Encode = Callable[[Question], tuple[list[int], list[int]]]
_SPEEDS = np.geomspace(0.012, 0.16, SPEED_BINS - 1)  # frame sides a frame, between the bins
_SIZES = (0.09, 0.115, 0.14)  # radii between the classes
_STILL = 0.006  # frame sides a frame below which a thing stands still
_CHANGES = {"grow": 1, "shrink": 2, "recolour": 3}
_FLASH_LABEL = len(COLOUR_NAMES) + 1


@dataclass(frozen=True, eq=False)
class Clips:
    """Rendered scenes: frames uint8 (batch, T, H, W, 3), and labels (batch, T, N) by AUXILIARY's names."""

    scenes: list[Scene]
    frames: Tensor
    labels: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Questions:
    """Text ids, segment numbers and targets (batch, S); a target of -1 is not predicted."""

    text: Tensor
    segments: Tensor
    targets: Tensor


class Questioner:
    """Questions as token ids, exactly as the runtime writes a prompt."""

    def __init__(self, prompt: ChatPrompt) -> None:
        rendered = prompt.render([Message("user", "?", video=True)])
        self.prompt, self.before = prompt, rendered.before
        self._end = next(i for i in rendered.after if i in prompt.eos_ids)  # what ends the user's turn ends an answer
        self._seen: dict[str, list[int]] = {}

    def __call__(self, question: Question) -> tuple[list[int], list[int]]:
        """Ids after the video up to where the answer begins, and of the answer with its end."""
        ids = self._seen.get(question.text)
        if ids is None:
            ids = self._seen[question.text] = self.prompt.render([Message("user", question.text, video=True)]).after
        return ids, [*self.prompt.encode(question.answer), self._end]


def make_clips(rng: np.random.Generator, batch: int, frames: int, size: int, grid: int, *, mixed: float = 0.0) -> Clips:
    """`batch` training scenes of one length, a share `mixed` of them of that theme, the others as usual."""

    def scene() -> Scene:
        return sample_scene(rng, frames, "train", "mixed" if mixed and rng.random() < mixed else None)

    return rendered([scene() for _ in range(batch)], size, grid)


def make_images(rng: np.random.Generator, batch: int, size: int, grid: int) -> Clips:
    """`batch` single frames of training scenes, from a moment in which every thing shows its own colour or a flash."""
    scenes = []
    for _ in range(batch):
        scene = sample_scene(rng, 8, "train")
        seen = np.all([t.visible & ((np.arange(8) < t.event) | (not t.turned)) for t in scene.things], axis=0)
        scenes.append(at_moment(scene, int(rng.choice(np.flatnonzero(seen))) if seen.any() else 0))
    return rendered(scenes, size, grid)


def at_moment(scene: Scene, moment: int) -> Scene:
    """The scene as a clip of one frame, in which nothing happens."""
    things = []
    for t in scene.things:
        one = slice(moment, moment + 1)
        flash = t.kind == "flash" and t.event == moment
        things.append(
            replace(
                t,
                kind="flash" if flash else "still",
                x=t.x[one],
                y=t.y[one],
                radius=t.radius[one],
                colour=t.colour[one],
                visible=t.visible[one],
                count=0,
                event=0,
                speed=0.0,
                turned="",
                done=np.zeros(1, np.int64),
            )
        )
    return replace(scene, frames=1, things=tuple(things))


def rendered(scenes: list[Scene], size: int, grid: int) -> Clips:
    """The clips of scenes of one length."""
    pictures = np.stack([render(scene, size) for scene in scenes])
    marks = [cell_labels(scene, grid) for scene in scenes]
    labels = {name: torch.from_numpy(np.stack([m[name] for m in marks])) for name in AUXILIARY}
    return Clips(scenes, torch.from_numpy(pictures), labels)


def _cells(thing: Thing, grid: int) -> npt.NDArray[np.int64]:
    """The token in which the thing's centre is, (T,)."""
    column, row = (np.clip(v * grid, 0, grid - 1).astype(np.int64) for v in (thing.x, thing.y))
    cells: npt.NDArray[np.int64] = row * grid + column
    return cells


def make_questions(
    scenes: list[Scene], rng: np.random.Generator, encode: Encode, most: int, controls: int
) -> Questions:
    """Up to `most` questions a scene, `controls` of them answered by a single frame."""
    rows = []
    for scene in scenes:
        every = ask(scene, rng)
        rng.shuffle(every)
        timed = [q for q in every if q.type in TIME_TYPES][: most - controls]
        still = [q for q in every if q.type not in TIME_TYPES][: max(controls, min(2, most - len(timed)))]
        rows.append([encode(q) for q in timed + still])
    length = max(sum(len(a) + len(b) - 1 for a, b in row) for row in rows)
    text, segments = np.zeros((len(rows), length), np.int64), np.zeros((len(rows), length), np.int64)
    targets = np.full((len(rows), length), -1, np.int64)
    for r, row in enumerate(rows):
        place = 0
        for number, (prompt, answer) in enumerate(row, 1):
            ids = [*prompt, *answer[:-1]]
            text[r, place : place + len(ids)] = ids
            segments[r, place : place + len(ids)] = number
            targets[r, place + len(prompt) - 1 : place + len(ids)] = answer
            place += len(ids)
    return Questions(*map(torch.from_numpy, (text, segments, targets)))


def cell_labels(scene: Scene, grid: int) -> dict[str, npt.NDArray[np.int64]]:
    """Labels (T, N) of the visual tokens in which things have their centres; -1 elsewhere.

    Colour and shape are 0 where nothing is near. The others say what has happened to the thing by each frame.
    """
    frames, times = scene.frames, np.arange(scene.frames)
    labels = {name: np.full((frames, grid * grid), -1, np.int64) for name in AUXILIARY}
    labels["colour"][:] = 0
    labels["shape"][:] = 0
    labels["cell"][:] = np.arange(grid * grid)
    centres = (np.arange(grid) + 0.5) / grid
    for thing in scene.things:  # tokens that only see an edge have no label
        reach = thing.radius[:, None] * 1.3 + 0.5 / grid
        columns, rows = (abs(v[:, None] - centres) < reach for v in (thing.x, thing.y))  # (T, grid)
        near = rows[:, :, None] & columns[:, None, :]
        for name in ("colour", "shape"):
            labels[name][near.reshape(frames, -1) & thing.visible[:, None]] = -1
    ranks = {id(t): i + 1 for i, t in enumerate(sorted(_ranked(scene), key=lambda t: t.event))}
    for thing in scene.things:
        cells = _cells(thing, grid)
        shown = times[thing.visible]
        after = times >= thing.event
        colour = np.full(frames, COLOUR_NAMES.index(thing.colour_name) + 1)
        if thing.turned:
            colour[after] = COLOUR_NAMES.index(thing.turned) + 1
        if thing.kind == "flash":
            colour[thing.event] = _FLASH_LABEL
        values = {
            "colour": colour,
            "shape": np.full(frames, SHAPE_NAMES.index(thing.shape) + 1),
            "column": (thing.x * grid % 1 * PLACES).astype(np.int64),
            "row": (thing.y * grid % 1 * PLACES).astype(np.int64),
            "size": np.searchsorted(_SIZES, thing.radius),
            "motion": _motion(thing),
            "edge": _edges(thing),
            "turn": np.diff(thing.done, prepend=thing.done[:1]) if thing.kind == "bounce" else np.zeros(frames),
            "direction": (times > thing.event) * (list(MOVES).index(thing.kind) + 1 if thing.kind in MOVES else 0),
            "speed": (times > thing.event) * (int(np.searchsorted(_SPEEDS, thing.speed)) + 1 if thing.speed else 0),
            "bounces": thing.done if thing.kind == "bounce" else np.zeros(frames),
            "blinks": thing.done if thing.kind == "blink" else np.zeros(frames),
            "rank": after * ranks.get(id(thing), 0),
            "change": after * _CHANGES.get(thing.kind, 0),
        }
        for name, value in values.items():
            labels[name][shown, cells[shown]] = value[shown]
    return labels


def _motion(thing: Thing) -> npt.NDArray[np.int64]:
    """Where the thing went since the frame before, (T,): 0 nowhere, else 1 + the place in MOVES; -1 at first."""
    dx, dy = (np.diff(v, prepend=v[:1]) for v in (thing.x, thing.y))
    far, names = _STILL, list(MOVES)
    moved = np.zeros(len(dx), np.int64)
    for name, where in (("left", dx < -far), ("right", dx > far), ("up", dy < -far), ("down", dy > far)):
        moved[where] = names.index(name) + 1
    moved[0] = -1
    return moved


def _edges(thing: Thing) -> npt.NDArray[np.int64]:
    """Whether the thing was out of sight in the frame before (1) and will be in the next (2), (T,)."""
    before, after = np.r_[True, thing.visible[:-1]], np.r_[thing.visible[1:], True]
    edges: npt.NDArray[np.int64] = ~before * 1 + ~after * 2
    return edges


def _ranked(scene: Scene) -> list[Thing]:
    return [t for t in scene.things if t.kind in ("appear", "flash")]
