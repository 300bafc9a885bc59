"""Both encoders with a switch for every linear layer: what quantizing any set of layers does, without reloading.

Every MatMul becomes an If whose one branch multiplies what Q/DQ leave of activations and weights, the other one the
originals. Sums are fp32, so it computes what an engine's integers stand for, whatever this machine's kernels do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from storm_edge.calibration.graphs import Scales, fp32_graph
from storm_edge.export.graph_file import Reader, save_model
from storm_edge.export.passes.narrow import narrow
from storm_edge.export.passes.quantize import LinearLayer, linear_layers, quantize
from storm_edge.export.passes.widen import widen
from storm_edge.runtime.answer.stages import Encoders
from storm_edge.runtime.answer.temporal import TemporalEncoder
from storm_edge.runtime.bundle.calibration import CALIBRATED, Range, Scheme
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.config.sizes import VISION_BATCH
from storm_edge.runtime.sessions.device import HOST, Device, Tensor
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession

SWITCHES = "quantized"
Key = tuple[Stage, str]  # a layer: its stage, and its node
Float32 = NDArray[np.float32]


class SwitchedEncoders:
    """Vision and temporal graphs; use as a context, which holds their temporary copies.

    `half` rounds weights and scales to fp16 first, as TensorRT's engines hold what they do not quantize.
    """

    def __init__(
        self,
        bundle: Bundle,
        ranges: Mapping[Stage, Mapping[str, Range]],
        scheme: Scheme,
        scales: Scales | None = None,
        threads: int | None = None,
        *,
        half: bool = False,
    ) -> None:
        self._pool = bundle.config.reduction.temporal_pool
        self._folder = TemporaryDirectory(prefix="storm-calibrate-")
        self._sessions: dict[Stage, OnnxRuntimeSession] = {}
        self.layers: dict[Stage, list[LinearLayer]] = {}
        for stage in CALIBRATED:
            model, readers = fp32_graph(bundle, stage, scales or {})
            if half:
                narrow(model, readers, "float16")
            self.layers[stage] = switch(model, readers, ranges[stage], scheme)
            path = Path(self._folder.name) / f"{stage}.onnx"
            save_model(model, path, f"{stage}.data", readers)
            self._sessions[stage] = OnnxRuntimeSession(path, threads, literal=True)

    def __enter__(self) -> SwitchedEncoders:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @property
    def keys(self) -> list[Key]:
        """Every layer."""
        return [(stage, layer.node) for stage, layers in self.layers.items() for layer in layers]

    def vision(self, frames: NDArray[np.uint8], quantized: Collection[Key]) -> Float32:
        """Frames (T, H, W, 3) -> tokens (T, N, D)."""
        return HOST.host(self._with(quantized).vision(frames))

    def temporal(self, tokens: Float32, quantized: Collection[Key]) -> Float32:
        """Tokens (T, N, D) -> visual tokens (1, ceil(T / k), N / p, D)."""
        return HOST.host(self._with(quantized).temporal(tokens))

    def _with(self, quantized: Collection[Key]) -> Encoders:
        """The encoders with the switches of these layers on."""
        chosen = {*quantized}
        on = {s: np.array([(s, x.node) in chosen for x in layers], bool) for s, layers in self.layers.items()}
        vision, temporal = (_SwitchedSession(self._sessions[stage], on[stage]) for stage in CALIBRATED)
        return Encoders(vision, TemporalEncoder(temporal), self._pool)


@dataclass(frozen=True)
class _SwitchedSession:
    """A Session on a graph of `switch`, with its switches `on` bool [layers] set."""

    session: OnnxRuntimeSession
    on: NDArray[np.bool_]
    device: Device = HOST
    batch: int = VISION_BATCH

    def run(self, **inputs: Tensor) -> dict[str, NDArray[Any]]:
        """Run once."""
        return self.session.run(**{SWITCHES: self.on, **inputs})


def switch(
    model: onnx.ModelProto, readers: dict[str, Reader], ranges: Mapping[str, Range], scheme: Scheme
) -> list[LinearLayer]:
    """Give a graph the input `quantized` bool [layers], in place, and make it fp32; returns the layers in its order."""
    graph = model.graph
    layers = linear_layers(model)
    weights = {t.name: t for t in graph.initializer if t.name in {layer.weight for layer in layers}}
    held = {name: readers[name] for name in weights if name in readers}
    quantize(model, readers, ranges, [layer.node for layer in layers], scheme)
    graph.initializer.extend(weights.values())  # the pass left none of them in the graph
    readers.update(held)
    widen(model, readers)
    graph.input.append(helper.make_tensor_value_info(SWITCHES, TensorProto.BOOL, [len(layers)]))
    place = {layer.node: i for i, layer in enumerate(layers)}
    undo = {f"{name}.dequantized" for name in weights}
    of_weight = {node.output[0]: node for node in graph.node if node.output[0] in undo}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in place:
            i = place[node.name]
            graph.initializer.append(numpy_helper.from_array(np.array(i), f"{node.name}.place"))
            nodes.append(
                helper.make_node(
                    "Gather", [SWITCHES, f"{node.name}.place"], [f"{node.name}.on"], name=f"{node.name}.on"
                )
            )
            nodes.append(_either(node, layers[i], of_weight[node.input[1]]))
        elif node.output[0] not in undo:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return layers


def _either(quantized: onnx.NodeProto, layer: LinearLayer, of_weight: onnx.NodeProto) -> onnx.NodeProto:
    """The If in place of a MatMul."""
    weight, ours, theirs = (f"{layer.node}.{name}" for name in ("weight", "quantized", "float"))
    unpack = onnx.NodeProto()
    unpack.CopyFrom(of_weight)
    unpack.name, unpack.output[0] = weight, weight
    branches = {
        "then_branch": [unpack, helper.make_node("MatMul", [quantized.input[0], weight], [ours], name=ours)],
        "else_branch": [helper.make_node("MatMul", [layer.input, layer.weight], [theirs], name=theirs)],
    }
    graphs = {
        name: helper.make_graph(
            steps, name, [], [helper.make_tensor_value_info(steps[-1].output[0], TensorProto.FLOAT, None)]
        )
        for name, steps in branches.items()
    }
    return helper.make_node("If", [f"{layer.node}.on"], quantized.output, name=layer.node, **graphs)
