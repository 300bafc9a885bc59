"""AWQ (arXiv 2306.00978): scales that make a language model's weights lose less as int4, from what they multiply.

A weight matters as much as what it is multiplied with. Its input channels are scaled by mean|X|^a before rounding, and
what makes the input is divided by the same; a is searched for every group of layers by the error of their output
(section 3.2). The scales are kept if the answers come nearer to fp32's with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from storm_edge.calibration.analysis import Asked
from storm_edge.calibration.decoder import decoder_of
from storm_edge.calibration.graphs import fp32_graph, some_rows
from storm_edge.calibration.language import Prompts, watch_decoder
from storm_edge.export.build.steps import nbits_steps
from storm_edge.export.graph_file import Reader
from storm_edge.export.passes.block_weights import INT4_KEPT
from storm_edge.export.passes.int4_blocks import block_integers, block_scales
from storm_edge.export.passes.smoothquant import Group, smoothquant, smoothquant_groups
from storm_edge.export.passes.tensors import values
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.llm.base import Generator

ALPHAS = tuple(i / 10 for i in range(1, 11))  # 0 changes nothing
ROWS = 2048  # of a group's input, on which a candidate is measured
_LIMIT = 1024.0  # of a scale, either way
_GAIN = 0.98  # a group is scaled where this much of the error is left, or less
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class AwqGroup:
    """What was found for the layers that read a tensor: relative errors of their output; `alpha` None: as it is."""

    output: str
    alpha: float | None
    error_without: float
    error_with: float


@dataclass(frozen=True)
class AwqResult:
    """Scales by tensor, and the divergence of the answers with int4 weights, in nats, without and with them."""

    scales: dict[str, Float32]
    groups: list[AwqGroup]
    block: int
    divergence_without: float
    divergence_with: float

    def as_json(self) -> dict[str, Any]:
        """What report.json says."""
        made = {name: getattr(self, name) for name in ("block", "divergence_without", "divergence_with")}
        return made | {"used": bool(self.scales), "groups": [asdict(group) for group in self.groups]}


@dataclass(frozen=True)
class Awq:
    """How to scale: by the first `prompts` of `asked`, for int4 weights in blocks of `block` inputs."""

    asked: Asked
    prompts: int = 16
    block: int = 128

    def run(self, bundle: Bundle, threads: int | None, detail: Callable[[str], None]) -> AwqResult:
        """Look for scales; raises BuildError where there are no questions."""
        prompts = Prompts.read(bundle, self.asked, self.prompts, threads, detail)
        scales, groups = _search(bundle, prompts.rows, self.block, threads, detail)
        divergences = []
        for tried in ({}, scales) if scales else ({},):
            detail(f"answers with int4 weights, {'scaled' if tried else 'as they are'}")
            divergences.append(prompts.loss.of(_int4_decoder(bundle, tried, self.block, threads), prompts.visual))
        without, scaled = divergences[0], divergences[-1]
        return AwqResult(scales if scaled < without else {}, groups, self.block, without, scaled)


def awq_scales(activations: Float32, alpha: float) -> Float32:
    """Scales [channels] of mean magnitudes [channels]; their geometric mean is 1. A channel that is 0 is left alone."""
    alive = activations > 0
    scales = np.ones_like(activations)
    if alive.any():
        logs = alpha * np.log(activations[alive])
        scales[alive] = np.exp(logs - logs.mean()).clip(1 / _LIMIT, _LIMIT)
    return scales


def _search(
    bundle: Bundle, prompts: Sequence[Float32], block: int, threads: int | None, detail: Callable[[str], None]
) -> tuple[dict[str, Float32], list[AwqGroup]]:
    """Scales and figures of every group, from the decoder's fp32 activations on whole prompts [S, D]."""
    model, readers = fp32_graph(bundle, "decoder", {})
    tensors = {t.name: t for t in model.graph.initializer}
    groups = [g for g in smoothquant_groups(model) if not {layer.weight for layer in g.layers} & INT4_KEPT]
    magnitudes, samples = _activations(bundle, model, readers, groups, prompts, threads, detail)
    scales: dict[str, Float32] = {}
    found = []
    for group in groups:
        detail(group.output)
        weight = np.concatenate([values(tensors[x.weight], readers) for x in group.layers], axis=1)
        figures, scale = _of_group(group.output, magnitudes[group.output], samples[group.output], weight, block)
        found.append(figures)
        if scale is not None:
            scales[group.output] = scale
    return scales, found


def _of_group(
    output: str, magnitudes: Float32, rows: Float32, weight: Float32, block: int
) -> tuple[AwqGroup, Float32 | None]:
    expected = rows @ weight

    def error(scale: Float32) -> float:
        off = (rows / scale) @ _int4(weight * scale[:, None], block) - expected
        return float(np.linalg.norm(off) / np.linalg.norm(expected))

    without = error(np.ones_like(magnitudes))
    tried = {alpha: awq_scales(magnitudes, alpha) for alpha in ALPHAS}
    errors = {alpha: error(scale) for alpha, scale in tried.items()}
    best = min(errors, key=lambda alpha: errors[alpha])
    if not errors[best] <= _GAIN * without:
        return AwqGroup(output, None, without, without), None
    return AwqGroup(output, best, without, errors[best]), tried[best]


def _int4(weight: Float32, block: int) -> Float32:
    """What int4 leaves of a weight [inputs, outputs]."""
    scales = block_scales(weight, block, 4)
    return block_integers(weight, scales, block, 4) * scales.repeat(block, axis=0)[: len(weight)]


def _activations(
    bundle: Bundle,
    model: onnx.ModelProto,
    readers: dict[str, Reader],
    groups: Sequence[Group],
    prompts: Sequence[Float32],
    threads: int | None,
    detail: Callable[[str], None],
) -> tuple[dict[str, Float32], dict[str, Float32]]:
    """Of every group's input the mean magnitudes [channels] and some rows, over all tokens of the prompts."""
    names = [group.output for group in groups]
    sums: dict[str, Any] = dict.fromkeys(names, 0.0)
    some: dict[str, list[Float32]] = {name: [] for name in names}
    for made in watch_decoder(bundle, model, readers, names, prompts, threads, detail):
        for name, array in made.items():
            activations = array.reshape(array.shape[1], -1)
            sums[name] = sums[name] + np.abs(activations).sum(axis=0, dtype=np.float64)
            some[name].append(some_rows(activations, max(1, ROWS // len(prompts))).copy())
    total = sum(map(len, prompts))
    magnitudes = {name: (sums[name] / total).astype(np.float32) for name in names}
    return magnitudes, {name: np.concatenate(some[name]) for name in names}


def _int4_decoder(bundle: Bundle, scales: dict[str, Float32], block: int, threads: int | None) -> Generator:
    model, readers = fp32_graph(bundle, "decoder", {})
    smoothquant(model, readers, scales)
    for step in nbits_steps(4, block):
        step.apply(model, readers)
    return decoder_of(bundle, model, readers, threads)
