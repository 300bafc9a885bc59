"""Scene -> frames, at any size: things blended over a noisy background, with grain and an unsteady camera."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from storm_edge.demo.palette import SHAPES
from storm_edge.demo.scene import Scene, Thing

Floats = npt.NDArray[np.float32]

_REACH = 1.3  # radii that a thing covers at most, with its soft edge
_SHAKE = 1 / 64  # of the frame's side


def render(scene: Scene, size: int) -> npt.NDArray[np.uint8]:
    """Frames uint8 [T, size, size, 3], RGB."""
    rng = np.random.default_rng(scene.seed)
    shake = np.zeros((scene.frames, 2), np.float32)
    if rng.random() < 0.35:
        shake = rng.uniform(-_SHAKE, _SHAKE, (scene.frames, 2)).astype(np.float32)
    softness = rng.uniform(0.8, 1.8) * size / 64  # pixels over which an edge is blended
    margin = int(np.ceil(_REACH * 0.16 * size)) + 3
    canvas = _background(rng, scene.frames, size, margin, shake)  # [T, size + 2 margin, size + 2 margin, 3]
    for thing in scene.things:
        _draw(canvas, thing, size, margin, shake, softness)
    picture = canvas[:, margin : margin + size, margin : margin + size]
    picture += _grain(rng, scene.frames, size) * np.float32(rng.uniform(1, 9))
    np.rint(picture, out=picture)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _background(rng: np.random.Generator, frames: int, size: int, margin: int, shake: Floats) -> Floats:
    """Dull colours, darker than any thing: plain, blotches, stripes or a gradient; moved along with the camera."""
    full = size + 2 * margin
    style = int(rng.integers(4))
    tone = rng.uniform(20, 85, 3)
    if style == 0:
        still = np.broadcast_to(tone, (full, full, 3))
    elif style == 1:
        cell = size // 8
        blotches = rng.uniform(15, 90, (full // cell + 1, full // cell + 1, 3))
        still = blotches.repeat(cell, 0).repeat(cell, 1)[:full, :full]
    elif style == 2:
        wave = np.sin(np.arange(full) * rng.uniform(4, 14) / size * np.pi)
        still = np.broadcast_to((tone + 14 * wave[:, None])[:, None], (full, full, 3))
        still = still.transpose(1, 0, 2) if rng.random() < 0.5 else still
    else:
        other = rng.uniform(20, 85, 3)
        ramp = np.linspace(0, 1, full)[:, None, None]
        still = np.broadcast_to(tone * ramp + other * (1 - ramp), (full, full, 3))
    picture = np.ascontiguousarray(still, dtype=np.float32)
    moved = np.rint(shake * size).astype(int)
    if not moved.any():
        return np.repeat(picture[None], frames, axis=0)
    return np.stack([np.roll(picture, (dy, dx), (0, 1)) for dx, dy in moved])


def _draw(canvas: Floats, thing: Thing, size: int, margin: int, shake: Floats, softness: float) -> None:
    shown = np.flatnonzero(thing.visible)
    radius = thing.radius[shown] * size
    x = (thing.x[shown] + shake[shown, 0]) * size + margin
    y = (thing.y[shown] + shake[shown, 1]) * size + margin
    reach = int(np.ceil(_REACH * radius.max())) + 1
    window = np.arange(-reach, reach + 1)
    rows, columns = np.floor(y).astype(int)[:, None] + window, np.floor(x).astype(int)[:, None] + window  # [n, K]
    dx = ((columns + 0.5 - x[:, None]) / radius[:, None]).astype(np.float32)
    dy = ((rows + 0.5 - y[:, None]) / radius[:, None]).astype(np.float32)
    distance = SHAPES[thing.shape](dx[:, None, :], dy[:, :, None]) * radius[:, None, None]  # pixels, [n, K, K]
    cover = np.clip(0.5 - distance / np.float32(softness), 0, 1)[..., None].astype(np.float32)
    place = shown[:, None, None], rows[:, :, None], columns[:, None, :]
    under = canvas[place]  # [n, K, K, 3]
    canvas[place] = under + (thing.colour[shown][:, None, None] - under) * cover


@cache
def _noise() -> Floats:
    return np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)


def _grain(rng: np.random.Generator, frames: int, size: int) -> Floats:
    """Noise [T, size, size, 1] of deviation 1, cut from a stock: drawing it would take longer than all the rest."""
    stock, pixels = _noise(), size * size
    starts = rng.integers(0, len(stock) - pixels, frames) if pixels < len(stock) else np.zeros(frames, int)
    return np.stack([np.resize(stock[s : s + pixels], pixels) for s in starts]).reshape(frames, size, size, 1)
