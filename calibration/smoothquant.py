"""SmoothQuant (arXiv 2211.10438): which norms to smooth, and how far, decided by what it does to the layers' outputs.

Few channels of a norm's output can be many times larger than all others; one scale for the tensor then leaves those
few levels. A channel's scale max|X|^a / max|W|^(1 - a) (equation 4) moves that into the weights, which have a scale for
every output. Scales are looked for norm by norm, and kept if both encoders together are nearer to fp32 with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storm_edge.calibration.counting import Clips
from storm_edge.calibration.graphs import Scales, fp32_graph, some_rows
from storm_edge.calibration.histogram import Histogram
from storm_edge.calibration.losses import Probe, TokenLoss
from storm_edge.calibration.methods import Method
from storm_edge.calibration.observe import Observer, Watcher
from storm_edge.calibration.switched import SwitchedEncoders
from storm_edge.calibration.thresholds import find_range
from storm_edge.export.passes.quantize import activation_scale
from storm_edge.export.passes.smoothquant import smoothquant_groups
from storm_edge.export.passes.tensors import values
from storm_edge.runtime.bundle.calibration import CALIBRATED, Range, Scheme
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.errors import BuildError

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
CLIPS = 8  # to look at
ROWS = 2048  # of a norm's output, on which a candidate is measured
_LIMIT = 1024.0  # of a scale, either way: half types hold the norm's and the weights' values still
_GAIN = 0.95  # a norm is smoothed where this much of the error is left, or less
_LEVELS: dict[Scheme, tuple[int, int]] = {"int8": (-128, 127), "uint8": (0, 255)}
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class SmoothQuantNorm:
    """What was found for a norm: relative errors of its layers' outputs; `alpha` None leaves it as it is."""

    stage: Stage
    output: str
    alpha: float | None
    error_without: float
    error_with: float


@dataclass(frozen=True)
class SmoothQuantResult:
    """Scales, and the relative error of the visual tokens with all layers in int8, without and with them.

    Without gain `scales` are empty and `error_with` is what they would have made of it.
    """

    scales: Scales
    norms: list[SmoothQuantNorm]
    error_without: float
    error_with: float

    def as_json(self) -> dict[str, Any]:
        """What report.json says."""
        made = {name: getattr(self, name) for name in ("error_without", "error_with")}
        return made | {"used": bool(self.scales), "norms": [asdict(norm) for norm in self.norms]}


@dataclass(frozen=True)
class SmoothQuant:
    """How to smooth: `alpha` None tries several for every norm, a number from 0 to 1 only that one, or none."""

    alpha: float | None = None

    def run(
        self,
        bundle: Bundle,
        clips: Clips,
        method: Method,
        threads: int | None,
        detail: Callable[[str], None],
    ) -> SmoothQuantResult:
        """Look for scales on the first clips; raises BuildError where there are none, and as `find_smoothquant`."""
        some = list(islice(clips(), CLIPS))
        if not some:
            raise BuildError("the data gave no clips: give more videos.")
        return find_smoothquant(bundle, some, method, self.alpha, threads, detail)


@dataclass
class _Sample:
    """What a norm gave out: every channel's largest magnitude, and some rows."""

    largest: Float32 | None = None
    rows: list[Float32] = field(default_factory=list)

    def add(self, output: NDArray[Any]) -> None:
        rows = output.reshape(-1, output.shape[-1])
        largest = np.abs(rows).max(axis=0)
        self.largest = largest if self.largest is None else np.maximum(self.largest, largest)
        self.rows.append(some_rows(rows, ROWS // CLIPS).copy())


def find_smoothquant(
    bundle: Bundle,
    clips: Sequence[NDArray[np.uint8]],
    method: Method,
    alpha: float | None,
    threads: int | None,
    detail: Callable[[str], None],
) -> SmoothQuantResult:
    """Look for scales on a few clips uint8 [T, H, W, 3]; `alpha` None tries ALPHAS, a number only that one.

    Raises BuildError for activations that are no finite numbers or never change.
    """
    detail("both encoders without smoothing")
    without = _error(bundle, clips, method, {}, threads)
    samples: dict[Stage, dict[str, _Sample]] = {stage: {} for stage in CALIBRATED}
    weights: dict[Stage, dict[str, list[Float32]]] = {stage: {} for stage in CALIBRATED}
    for stage in CALIBRATED:
        model, readers = fp32_graph(bundle, stage, {})
        tensors = {t.name: t for t in model.graph.initializer}
        for group in smoothquant_groups(model):  # norms: neither encoder has a gated feed-forward part
            samples[stage][group.output] = _Sample()
            weights[stage][group.output] = [values(tensors[x.weight], readers) for x in group.layers]

    def see(stage: Stage, name: str, output: NDArray[Any]) -> None:
        if name in samples[stage]:
            samples[stage][name].add(output)

    with Watcher(bundle, threads) as watcher:
        for i, clip in enumerate(clips):
            detail(f"{i + 1} of {len(clips)} clips")
            watcher.watch(clip, see)
    norms: list[SmoothQuantNorm] = []
    scales: dict[Stage, dict[str, Float32]] = {stage: {} for stage in CALIBRATED}
    for stage, of_stage in samples.items():
        for output, sample in of_stage.items():
            detail(f"{output} of the {stage} graph")
            norm, scale = _of_norm(stage, output, sample, weights[stage][output], method, alpha)
            norms.append(norm)
            if scale is not None:
                scales[stage][output] = scale
    if not any(scales.values()):
        return SmoothQuantResult({}, norms, without, without)
    detail("both encoders with smoothing")
    error = _error(bundle, clips, method, scales, threads)
    return SmoothQuantResult(scales if error < without else {}, norms, without, error)


def smoothquant_scales(activations: Float32, weights: Float32, alpha: float) -> Float32:
    """Scales [channels] of largest magnitudes [channels]; their geometric mean is 1, for a common factor does nothing.

    A channel in which either is always 0 is left as it is.
    """
    alive = (activations > 0) & (weights > 0)
    if not alive.any():
        return np.ones_like(activations)
    logs = alpha * np.log(activations[alive]) - (1 - alpha) * np.log(weights[alive])
    scales = np.ones_like(activations)
    scales[alive] = np.exp(logs - logs.mean()).clip(1 / _LIMIT, _LIMIT)
    return scales


def _of_norm(
    stage: Stage, output: str, sample: _Sample, weights: list[Float32], method: Method, alpha: float | None
) -> tuple[SmoothQuantNorm, Float32 | None]:
    assert sample.largest is not None
    rows = some_rows(np.concatenate(sample.rows), ROWS)
    weight = np.concatenate(weights, axis=1)  # (channels, outputs of all layers)
    heaviest = np.abs(weight).max(axis=1)
    expected = rows @ weight
    without = _linear_error(rows, weight, expected, method)
    tried = {a: smoothquant_scales(sample.largest, heaviest, a) for a in (ALPHAS if alpha is None else (alpha,))}
    errors = {a: _linear_error(rows / s, weight * s[:, None], expected, method) for a, s in tried.items()}
    best = min(errors, key=lambda a: errors[a])
    if errors[best] > _GAIN * without:
        return SmoothQuantNorm(stage, output, None, without, without), None
    return SmoothQuantNorm(stage, output, best, without, errors[best]), tried[best]


def _linear_error(rows: Float32, weight: Float32, expected: Float32, method: Method) -> float:
    """The relative error of rows @ weight in int8, by the worse of the CPU's scheme and TensorRT's."""
    seen = Histogram()
    seen.add(rows)
    span = find_range(seen, method)
    step = np.abs(weight).max(axis=0) / 127  # (outputs)
    step[step == 0] = 1
    rounded = np.rint(weight / step) * step
    off = [np.linalg.norm(_rounded(rows, span, scheme) @ rounded - expected) for scheme in _LEVELS]
    return float(max(off) / np.linalg.norm(expected))


def _rounded(rows: Float32, span: Range, scheme: Scheme) -> Float32:
    scale, zero = activation_scale(span, scheme)
    step, middle = np.float32(scale), np.float32(zero)
    rounded: Float32 = ((np.rint(rows / step) + middle).clip(*_LEVELS[scheme]) - middle) * step
    return rounded


def _error(
    bundle: Bundle, clips: Sequence[NDArray[np.uint8]], method: Method, scales: Scales, threads: int | None
) -> float:
    """The relative error of the visual tokens with every layer in int8."""
    with Observer(bundle, threads, scales) as observer:
        for clip in clips:
            observer.add(clip)
    with SwitchedEncoders(bundle, observer.ranges(method), "int8", scales, threads) as encoders:
        probe = Probe(encoders, clips)
        return TokenLoss(probe.reference)(probe.visual(encoders.keys))
