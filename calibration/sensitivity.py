"""Which layers to quantize: what each costs alone, and the most that can be quantized together within a limit.

Layers are ranked by their loss (to the power that adds up) per multiplication, so that a prefix of the ranking is much
work for little loss. Every loss is measured, of sets too: how losses add up is used to decide what to measure only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from storm_edge.calibration.losses import Loss, Probe
from storm_edge.calibration.switched import Key, SwitchedEncoders
from storm_edge.runtime.bundle.manifest import Stage
from storm_edge.runtime.errors import BuildError

POINTS = 16  # of the curve: sets that are measured between none and all
_HOPELESS = 1.5  # a layer is not tried where its own loss would exceed the limit by this factor


@dataclass(frozen=True)
class LayerCost:
    """One layer quantized alone: `loss`, and the relative error of its own stage's output.

    `place` counts the layers from the frames on; `share` is its part of all layers' multiplications.
    """

    stage: Stage
    node: str
    module: str
    place: int
    share: float
    loss: float
    stage_error: float

    @property
    def key(self) -> Key:
        """The layer."""
        return self.stage, self.node


@dataclass(frozen=True)
class Point:
    """The first `layers` of the ranking quantized together: their share of the multiplications, and their loss."""

    layers: int
    share: float
    loss: float


@dataclass(frozen=True)
class Sensitivity:
    """An analysis; `layers` begin with those to quantize first. Without `max_loss` all are chosen."""

    loss: str
    clips: int
    layers: list[LayerCost]
    curve: list[Point]
    max_loss: float | None
    chosen: frozenset[Key]
    chosen_share: float
    chosen_loss: float

    def as_json(self) -> dict[str, Any]:
        """What sensitivity.json says."""
        rows = [asdict(x) | {"quantize": x.key in self.chosen} for x in self.layers]
        made = {name: getattr(self, name) for name in ("loss", "clips", "max_loss", "chosen_share", "chosen_loss")}
        return made | {"layers": rows, "curve": [asdict(point) for point in self.curve]}


def analyze(
    encoders: SwitchedEncoders,
    probe: Probe,
    loss: Loss,
    multiplications: Mapping[Key, int],
    *,
    clips: int,
    max_loss: float | None,
    detail: Callable[[str], None] = lambda _: None,
) -> Sensitivity:
    """Measure every layer alone, the ranking's prefixes, and with `max_loss` the largest set found within it.

    Raises BuildError where not one layer fits into `max_loss`.
    """

    def measure(keys: Sequence[Key]) -> float:
        return loss(probe.visual(keys)) if keys else 0.0

    total = sum(multiplications.values())
    share = {key: multiplications[key] / total for key in encoders.keys}
    modules = {(stage, x.node): x.module for stage, layers in encoders.layers.items() for x in layers}
    alone: dict[Key, float] = {}
    stage_error: dict[Key, float] = {}
    for i, key in enumerate(encoders.keys):
        detail(f"layer {i + 1} of {len(share)} alone")
        visual, stage_error[key] = probe.alone(key)
        alone[key] = loss(visual)
    ranked = sorted(share, key=lambda key: (alone[key] ** loss.power / share[key], key))
    place = {key: i for i, key in enumerate(encoders.keys)}
    costs = [LayerCost(*key, modules[key], place[key], share[key], alone[key], stage_error[key]) for key in ranked]
    measured: dict[int, float] = {0: 0.0}

    def prefix(count: int) -> float:
        if count not in measured:
            detail(f"{count} of {len(ranked)} layers together")
            measured[count] = measure(ranked[:count])
        return measured[count]

    for count in np.linspace(1, len(ranked), min(POINTS, len(ranked))).round().astype(int).tolist():
        prefix(count)
    chosen = ranked
    if max_loss is not None:
        chosen = _within(ranked, alone, prefix, measure, max_loss, loss.power, detail)
    curve = [
        Point(count, float(sum(share[key] for key in ranked[:count])), measured[count]) for count in sorted(measured)
    ]
    return Sensitivity(
        loss=loss.name,
        clips=clips,
        layers=costs,
        curve=curve,
        max_loss=max_loss,
        chosen=frozenset(chosen),
        chosen_share=float(sum(share[key] for key in chosen)),
        chosen_loss=measure(chosen),
    )


def _within(
    ranked: list[Key],
    alone: Mapping[Key, float],
    prefix: Callable[[int], float],
    measure: Callable[[Sequence[Key]], float],
    limit: float,
    power: int,
    detail: Callable[[str], None],
) -> list[Key]:
    """The longest prefix whose loss is within the limit, and of the rest every layer that still fits."""
    fits, fails = 0, len(ranked) + 1
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if prefix(middle) <= limit else (fits, middle)
    chosen, reached = ranked[:fits], prefix(fits)
    for key in ranked[fits:]:
        expected = (reached**power + alone[key] ** power) ** (1 / power)
        if expected > _HOPELESS * limit:
            continue
        detail(f"{len(chosen)} layers and {key[1]}")
        if (found := measure([*chosen, key])) <= limit:
            chosen, reached = [*chosen, key], found
    if not chosen:
        least = min(alone.values())
        raise BuildError(
            f"no layer can be quantized within --max-loss {limit:g}: the one that costs least costs {least:.3g};"
            " allow more, or leave --max-loss out to see what every layer costs."
        )
    return chosen
