"""Which layers each scheme quantizes: as many as verification will accept, the rest stays in floating point.

Layers with the least rounding noise for their multiplications come first, so those that must stay are tried last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from storm_edge.calibration.acceptance import Acceptance, fit
from storm_edge.calibration.decoder import load_llm
from storm_edge.calibration.graphs import Scales
from storm_edge.calibration.histogram import Histogram
from storm_edge.calibration.switched import Key, SwitchedEncoders
from storm_edge.calibration.thresholds import quantization_noise
from storm_edge.runtime.bundle.calibration import SCHEMES, Range, Scheme
from storm_edge.runtime.bundle.manifest import Bundle, Stage


@dataclass(frozen=True)
class Choice:
    """What a scheme quantizes: its share of all layers' multiplications, and the share of the limits it uses up.

    `left` are the layers that stay in floating point, by their names in the checkpoint. `answers`: whether the logits
    were measured too.
    """

    chosen: frozenset[Key]
    layers: int
    share: float
    used: float
    left: list[str]
    answers: bool

    def as_json(self) -> dict[str, Any]:
        """What report.json says."""
        figures = {"multiplications": round(self.share, 4), "limits_used": round(self.used, 3)}
        return figures | {"layers": len(self.chosen), "of": self.layers, "left": self.left, "answers": self.answers}


def choose_layers(
    bundle: Bundle,
    ranges: Mapping[Stage, Mapping[str, Range]],
    scales: Scales,
    seen: Mapping[Stage, Mapping[str, Histogram]],
    multiplications: Mapping[Stage, Mapping[str, int]],
    candidates: Collection[Key] | None,
    budget: float,
    threads: int | None,
    detail: Callable[[str], None],
) -> dict[Scheme, Choice]:
    """The layers, of `candidates` or of all, that each scheme can quantize within `budget` of verification's limits."""
    llm = load_llm(bundle, threads)
    work = {(stage, node): number for stage, of_stage in multiplications.items() for node, number in of_stage.items()}
    choices: dict[Scheme, Choice] = {}
    for scheme in SCHEMES:
        with SwitchedEncoders(bundle, ranges, scheme, scales, threads, half=scheme != "uint8") as encoders:
            layers = [((stage, layer.node), layer) for stage, found in encoders.layers.items() for layer in found]
            noise = {key: _noise(seen[key[0]][x.input], ranges[key[0]][x.input], scheme) for key, x in layers}
            wanted = [key for key, _ in layers if candidates is None or key in candidates]
            acceptance = Acceptance(bundle, encoders, scheme, llm)
            chosen = fit(
                sorted(wanted, key=lambda key: noise[key] / max(work[key], 1)),
                acceptance,
                budget,
                lambda words, scheme=scheme: detail(f"{scheme}: {words}"),  # type: ignore[misc]
            )
            choices[scheme] = Choice(
                chosen=frozenset(chosen),
                layers=len(layers),
                share=sum(work[key] for key in chosen) / sum(work.values()),
                used=acceptance.used(chosen),
                left=[layer.module for key, layer in layers if key not in chosen],
                answers=llm is not None,
            )
    return choices


def _noise(seen: Histogram, span: Range, scheme: Scheme) -> float:
    """A tensor's rounding noise over its signal, as a power; the same for all in fp8, whose steps grow with values."""
    if scheme == "fp8":
        return 1.0
    low, high, steps = (span.low, span.high, 255) if scheme == "uint8" else (-span.int8, span.int8, 254)
    return float(10 ** (-quantization_noise(seen, low, high, steps) / 10))
