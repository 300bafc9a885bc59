"""Run a bundle's fp32 graphs on clips and count what reaches every linear layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from storm_edge.calibration.graphs import Scales, fp32_graph
from storm_edge.calibration.histogram import Histogram
from storm_edge.calibration.methods import Method
from storm_edge.calibration.thresholds import find_range
from storm_edge.export.graph_file import save_model
from storm_edge.export.passes.quantize import LinearLayer, linear_layers
from storm_edge.runtime.answer.stages import Encoders
from storm_edge.runtime.answer.temporal import TemporalEncoder
from storm_edge.runtime.bundle.calibration import CALIBRATED, Range
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.config.sizes import VISION_BATCH
from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.sessions.device import HOST, Device, Tensor
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession

# What one run of the vision graph may leave in outputs that are only looked at.
WATCHED_BYTES = 256 * 2**20


See = Callable[[Stage, str, NDArray[Any]], None]


@dataclass
class _WatchedSession:
    """A Session on a graph in fp32 that gives its linear layers' inputs as outputs too, and shows them to `see`."""

    stage: Stage
    session: OnnxRuntimeSession
    layers: list[LinearLayer]
    see: See = lambda *_: None
    device: Device = HOST
    batch: int = 1  # until it is known how much a frame makes

    def run(self, **inputs: Tensor) -> dict[str, NDArray[Any]]:
        """Run once."""
        given = {name: HOST.host(x) for name, x in inputs.items()}
        made = self.session.run(**given)
        for name in dict.fromkeys(layer.input for layer in self.layers):
            self.see(self.stage, name, made[name] if name in made else given[name])
        of_one = sum(x.nbytes for x in made.values()) // len(next(iter(given.values())))
        self.batch = int(np.clip(WATCHED_BYTES // max(of_one, 1), 1, VISION_BATCH))
        return made


class Watcher:
    """Shows what linear layers read, clip by clip; use as a context, which holds the graphs' temporary copies."""

    def __init__(self, bundle: Bundle, threads: int | None = None, scales: Scales | None = None) -> None:
        self._folder = TemporaryDirectory(prefix="storm-calibrate-")
        self._sessions = [_watched(bundle, s, Path(self._folder.name), threads, scales or {}) for s in CALIBRATED]
        vision, temporal = self._sessions
        self._encoders = Encoders(vision, TemporalEncoder(temporal), bundle.config.reduction.temporal_pool)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @property
    def layers(self) -> dict[Stage, list[LinearLayer]]:
        """The linear layers that are watched."""
        return {watched.stage: watched.layers for watched in self._sessions}

    def watch(self, frames: NDArray[np.uint8], see: See) -> NDArray[np.float32]:
        """Run both graphs on frames uint8 [T, H, W, 3] and show `see` every tensor that a linear layer reads.

        Returns the visual tokens (1, ceil(T / k), N / p, D).
        """
        for session in self._sessions:
            session.see = see
        return HOST.host(self._encoders.temporal(self._encoders.vision(frames)))


class Observer(Watcher):
    """Counts what linear layers read."""

    def __init__(self, bundle: Bundle, threads: int | None = None, scales: Scales | None = None) -> None:
        super().__init__(bundle, threads, scales)
        self.histograms: dict[Stage, dict[str, Histogram]] = {
            stage: {layer.input: Histogram() for layer in layers} for stage, layers in self.layers.items()
        }

    def __enter__(self) -> Observer:
        return self

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Count what frames uint8 [T, H, W, 3] do in both graphs; raises BuildError for NaN and infinity."""
        self.watch(frames, self._count)

    def _count(self, stage: Stage, name: str, values: NDArray[Any]) -> None:
        add_to(self.histograms[stage][name], stage, name, values)

    def ranges(self, method: Method) -> dict[Stage, dict[str, Range]]:
        """The range of every tensor; raises BuildError for one that never changes."""
        return {
            stage: {tensor: range_of(stage, tensor, seen, method) for tensor, seen in of_stage.items()}
            for stage, of_stage in self.histograms.items()
        }

    def multiplications(self) -> dict[Stage, dict[str, int]]:
        """How often each layer (by its node) multiplied so far."""
        return {
            stage: {x.node: int(self.histograms[stage][x.input].counts.sum()) * x.shape[1] for x in layers}
            for stage, layers in self.layers.items()
        }


def add_to(histogram: Histogram, stage: Stage, tensor: str, values: NDArray[Any]) -> None:
    """Count a tensor's values; raises BuildError for NaN and infinity."""
    try:
        histogram.add(values)
    except ValueError as e:
        raise BuildError(
            f"calibration: {tensor} of the {stage} graph has {e}: the checkpoint or its export is broken,"
            " check it with `storm verify`."
        ) from e


def range_of(stage: Stage, tensor: str, seen: Histogram, method: Method) -> Range:
    """What a tensor is cut to; raises BuildError where it never changes."""
    try:
        return find_range(seen, method)
    except ValueError as e:
        raise BuildError(
            f"calibration: {tensor} of the {stage} graph never changes ({e}): calibrate on real videos,"
            " or check the checkpoint with `storm verify`."
        ) from e


def _watched(bundle: Bundle, stage: Stage, folder: Path, threads: int | None, scales: Scales) -> _WatchedSession:
    model, readers = fp32_graph(bundle, stage, scales)
    layers = linear_layers(model)
    give_out(model, [layer.input for layer in layers])
    save_model(model, folder / f"{stage}.onnx", f"{stage}.data", readers)
    return _WatchedSession(stage, OnnxRuntimeSession(folder / f"{stage}.onnx", threads), layers)


def give_out(model: onnx.ModelProto, names: list[str]) -> None:
    """Make fp32 tensors of a graph outputs too, in place."""
    there = {value.name for value in (*model.graph.output, *model.graph.input)}
    for name in dict.fromkeys(names):
        if name not in there:
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def to_arrays(histograms: Mapping[Stage, Mapping[str, Histogram]]) -> dict[str, NDArray[Any]]:
    """Histograms as plain arrays, `<stage>/<tensor>/counts` and `.../span` (low, high, limit)."""
    arrays: dict[str, NDArray[Any]] = {}
    for stage, of_stage in histograms.items():
        for name, seen in of_stage.items():
            arrays[f"{stage}/{name}/counts"] = seen.counts
            arrays[f"{stage}/{name}/span"] = np.array([seen.low, seen.high, seen.limit])
    return arrays


def from_arrays(histograms: Mapping[Stage, Mapping[str, Histogram]], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Fill histograms with what `to_arrays` gave; raises KeyError for other tensors."""
    for stage, of_stage in histograms.items():
        for name, seen in of_stage.items():
            low, high, limit = (float(x) for x in arrays[f"{stage}/{name}/span"])
            seen.low, seen.high, seen.limit = low, high, limit
            seen.counts = arrays[f"{stage}/{name}/counts"].copy()
