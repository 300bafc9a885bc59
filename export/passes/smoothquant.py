"""Smoothing: divide the channels that linear layers read by scales where they are made, and multiply the weights by
the same.

The function stays what it was, up to rounding, and what is between becomes easier to quantize: activations by
SmoothQuant (arXiv 2211.10438, section 4), blocks of weights by AWQ (arXiv 2306.00978, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from storm_edge.export.checkpoint.weights import Array
from storm_edge.export.graph_file import Reader
from storm_edge.export.passes.quantize import LinearLayer, linear_layers
from storm_edge.export.passes.step import Step
from storm_edge.export.passes.tensors import values
from storm_edge.runtime.bundle.calibration import Calibration
from storm_edge.runtime.bundle.manifest import Stage
from storm_edge.runtime.errors import BuildError

_NORMS = ("LayerNormalization", "RMSNormalization")


@dataclass(frozen=True)
class Group:
    """The linear layers that read a tensor, which nothing else does, and the node whose constants scale it."""

    output: str
    layers: tuple[LinearLayer, ...]
    source: str


def smoothquant_groups(model: onnx.ModelProto) -> list[Group]:
    """The tensors that can be scaled: what a norm gives out, and products of which one factor is a linear layer's.

    The second are those of a gated feed-forward part: gate(x) * up(x), scaled by up's outputs, and read by down.
    """
    graph = model.graph
    constants = {t.name for t in graph.initializer}
    linears = {layer.node: layer for layer in linear_layers(model)}
    by_input: dict[str, list[LinearLayer]] = {}
    for layer in linears.values():
        by_input.setdefault(layer.input, []).append(layer)
    readers: dict[str, set[str]] = {}
    makers: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        makers |= dict.fromkeys(node.output, node)
        for name in node.input:
            readers.setdefault(name, set()).add(node.name)
    groups = []
    for node in graph.node:
        output = node.output[0]
        layers = by_input.get(output, [])
        if not layers or readers[output] != {layer.node for layer in layers}:
            continue
        source = None
        if node.op_type in _NORMS and set(node.input[1:]) <= constants:
            source = node.name
        elif node.op_type == "Mul":
            factors = [makers[name].name for name in node.input if name in makers and readers[name] == {node.name}]
            source = next((name for name in factors if name in linears), None)
        if source is not None:
            groups.append(Group(output, tuple(layers), source))
    return groups


def smoothquant(model: onnx.ModelProto, readers: dict[str, Reader], scales: Mapping[str, Array]) -> None:
    """Apply positive scales [channels] by the name of a group's output, in place; other tensors stay as they are.

    Raises ValueError for an output that is none of `smoothquant_groups`, or scales of another length.
    """
    graph = model.graph
    groups = {group.output: group for group in smoothquant_groups(model)}
    nodes = {node.name: node for node in graph.node}
    for output, scale in scales.items():
        group = groups.get(output)
        if group is None:
            raise ValueError(
                f"{output} is nothing that a norm or gate makes for linear layers, so it cannot be smoothed"
            )
        if scale.shape != (group.layers[0].shape[0],):
            raise ValueError(f"{output} has {group.layers[0].shape[0]} channels, its scales are {list(scale.shape)}")
        source = nodes[group.source]  # a weight's last axis is that of what it gives out
        for place in range(1, len(source.input)):
            _multiply(graph, source, place, readers, 1 / scale)
        for layer in group.layers:
            _multiply(graph, nodes[layer.node], 1, readers, scale[:, None])


def smoothquant_steps(calibration: Calibration | None, stage: Stage) -> list[Step]:
    """The pass for a build, by a calibration's scales of a stage; none where it has none. Raises BuildError."""
    if calibration is None or not calibration.scales[stage]:
        return []

    def apply(model: onnx.ModelProto, readers: dict[str, Reader]) -> None:
        try:
            smoothquant(model, readers, calibration.scales[stage])
        except ValueError as e:
            raise BuildError(f"calibration {calibration.name}: {e}: repeat `storm calibrate`.") from e

    return [Step("smooth", 1, apply, calibration.sha256)]


def _multiply(
    graph: onnx.GraphProto, node: onnx.NodeProto, place: int, readers: dict[str, Reader], factor: Array
) -> None:
    """Multiply the constant that a node reads; where others read it too, they keep the one there was."""
    name = node.input[place]
    (source,) = (t for t in graph.initializer if t.name == name)
    held = {name: readers[name]} if name in readers else {}
    kind = helper.tensor_dtype_to_np_dtype(source.data_type)
    kept = onnx.TensorProto()
    kept.CopyFrom(source)
    used = sum(list(n.input).count(name) for n in graph.node)
    if used == 1:
        graph.initializer.remove(source)
        readers.pop(name, None)
    made = name if used == 1 else f"{name}.{node.name}.{place}"
    node.input[place] = made
    graph.initializer.append(TensorProto(name=made, data_type=source.data_type, dims=kept.dims))
    readers[made] = lambda: (values(kept, held).astype(np.float32) * factor).astype(kind)
