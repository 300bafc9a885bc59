"""Q/DQ: int8 or fp8 in front of linear layers, from the ranges of a calibration.

Placement, for TensorRT and ONNX Runtime alike: per-tensor activations and per-channel symmetric weights, only where a
MatMul multiplies a constant. The patch convolution, attention, norms, residual adds, pooling, the scan, and what
computes the scan's delta, B and C (small layers, whose results become exponents) stay in floating point.
A tensor that several layers read is quantized once. Weights are stored quantized, with DequantizeLinear alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from storm_edge.export.checkpoint.weights import Array
from storm_edge.export.graph_file import Reader
from storm_edge.export.passes.step import Step
from storm_edge.export.passes.tensors import values
from storm_edge.plugins.selective_scan import op as selective_scan
from storm_edge.runtime.bundle.calibration import Calibration, Range, Scheme
from storm_edge.runtime.bundle.manifest import Stage
from storm_edge.runtime.errors import BuildError

_E4M3_LARGEST = 448.0
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_STEERING = [i for i, value in enumerate(selective_scan.SCHEMA.inputs) if value.name in ("delta", "B", "C")]


@dataclass(frozen=True)
class LinearLayer:
    """A MatMul of an activation and a constant weight [inputs, outputs]."""

    node: str
    input: str
    weight: str
    shape: tuple[int, int]
    module: str


def linear_layers(model: onnx.ModelProto) -> list[LinearLayer]:
    """The layers that may be quantized, in the graph's order."""
    graph = model.graph
    tensors = {t.name: t for t in graph.initializer}
    readers = {name: node for node in reversed(graph.node) for name in node.input}
    kept = set(_steering_the_scan(graph))
    found = []
    for node in graph.node:
        weight = tensors.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None or weight.data_type not in _FLOATS or len(weight.dims) != 2 or node.name in kept:
            continue
        rows, columns = weight.dims
        found.append(
            LinearLayer(node.name, node.input[0], weight.name, (rows, columns), _module(node, readers, tensors))
        )
    return _name_mixers(found, graph)


_MIXER = ("in_proj.x", "in_proj.z", "out_proj")  # the graph's order; what is scanned, and its gate


def _name_mixers(layers: list[LinearLayer], graph: onnx.GraphProto) -> list[LinearLayer]:
    """Mamba's linear layers have no bias to know them by; a mixer has three of them."""
    if not any(node.op_type == selective_scan.NAME for node in graph.node):
        return layers
    return [
        replace(layer, module=f"layers.{i // len(_MIXER)}.mixer.{_MIXER[i % len(_MIXER)]}")
        for i, layer in enumerate(layers)
    ]


def quantize(
    model: onnx.ModelProto,
    readers: dict[str, Reader],
    ranges: Mapping[str, Range],
    chosen: Collection[str],
    scheme: Scheme,
) -> list[str]:
    """Put Q/DQ in front of the MatMul nodes in `chosen`, in place; returns those quantized.

    `ranges` are by the name of the activation in the canonical graph; fp32 and half graphs both do. Raises ValueError
    for a chosen node that is none of `linear_layers`.
    """
    layers = {layer.node: layer for layer in linear_layers(model)}
    if unknown := sorted(set(chosen) - set(layers)):
        raise ValueError(f"{unknown[0]} is no linear layer that can be quantized")
    if missing := sorted({layers[name].input for name in chosen} - set(ranges)):
        raise ValueError(f"no range of {missing[0]} is known")
    graph = model.graph
    tensors = {t.name: t for t in graph.initializer}
    made: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in chosen:
            layer, kind = layers[node.name], tensors[node.input[1]].data_type
            if f"{layer.input}.quantized" not in made:
                made.add(f"{layer.input}.quantized")
                nodes += _activation(graph, layer.input, ranges[layer.input], scheme, kind)
            if f"{layer.weight}.quantized" not in made:
                made.add(f"{layer.weight}.quantized")
                nodes.append(_weight(graph, tensors[layer.weight], readers, scheme))
            node.input[0], node.input[1] = f"{layer.input}.dequantized", f"{layer.weight}.dequantized"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused(graph, readers, {layers[name].weight for name in chosen})
    return [layer for layer in layers if layer in chosen]


def quantize_step(calibration: Calibration, stage: Stage, scheme: Scheme) -> Step:
    """The pass for a build: a stage's layers that a calibration chose; raises BuildError where they are not there."""

    def apply(model: onnx.ModelProto, readers: dict[str, Reader]) -> None:
        try:
            quantize(model, readers, calibration.ranges[stage], calibration.chosen(stage, scheme), scheme)
        except ValueError as e:
            raise BuildError(
                f"calibration {calibration.name}: {e}: correct its layers.json or repeat `storm calibrate`."
            ) from e

    return Step("quantize", 1, apply, f"{scheme} {calibration.sha256}")


def _activation(graph: onnx.GraphProto, name: str, span: Range, scheme: Scheme, kind: int) -> Iterator[onnx.NodeProto]:
    scale, zero = activation_scale(span, scheme)
    parameters = [f"{name}.scale", f"{name}.zero"]
    wide = helper.tensor_dtype_to_np_dtype(kind)
    graph.initializer.append(numpy_helper.from_array(np.array(scale).astype(wide), parameters[0]))
    graph.initializer.append(numpy_helper.from_array(zero, parameters[1]))
    for op, source, result in (("Quantize", name, f"{name}.quantized"), ("Dequantize", f"{name}.quantized", None)):
        result = result or f"{name}.dequantized"
        yield helper.make_node(f"{op}Linear", [source, *parameters], [result], name=result)


def activation_scale(span: Range, scheme: Scheme) -> tuple[float, NDArray[Any]]:
    """Scale and zero point of a tensor; 0 is always exact, so that padding and silence stay what they are."""
    if scheme == "fp8":
        return span.largest / _E4M3_LARGEST, np.array(0, ml_dtypes.float8_e4m3fn)
    if scheme == "int8":
        return span.int8 / 127, np.array(0, np.int8)
    low, high = min(span.low, 0.0), max(span.high, 0.0)
    scale = (high - low) / 255
    return scale, np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8)


def _weight(
    graph: onnx.GraphProto, tensor: onnx.TensorProto, readers: dict[str, Reader], scheme: Scheme
) -> onnx.NodeProto:
    """The quantized weight, its scale for every output, and the node that undoes it; both are computed when read."""
    name = tensor.name
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    small, largest = (ml_dtypes.float8_e4m3fn, _E4M3_LARGEST) if scheme == "fp8" else (np.int8, 127.0)
    source = onnx.TensorProto()
    source.CopyFrom(tensor)
    held = {name: readers[name]} if name in readers else {}

    def scales() -> Array:
        scale = np.abs(values(source, held).astype(np.float32)).max(axis=0) / largest  # (outputs)
        # A scale that is 0, or becomes 0 in T, is a weight of zeros.
        scale = scale.astype(kind)
        return np.where(scale == 0, np.array(1, kind), scale)

    def quantized() -> Array:
        # Divided by the scale as it is stored, so that its rounding is not added to the weight's.
        scaled = values(source, held).astype(np.float32) / scales().astype(np.float32)
        return (np.rint(scaled) if scheme != "fp8" else scaled).clip(-largest, largest).astype(small)

    stored = helper.np_dtype_to_tensor_dtype(np.dtype(small))
    graph.initializer.append(TensorProto(name=f"{name}.quantized", data_type=stored, dims=tensor.dims))
    graph.initializer.append(TensorProto(name=f"{name}.scale", data_type=tensor.data_type, dims=tensor.dims[1:]))
    # Symmetric, but the parsers before TensorRT 10 and ONNX Runtime's fusion look for a zero point.
    zero = f"{name}.zero"
    graph.initializer.append(numpy_helper.from_array(np.zeros(tensor.dims[1], small), zero))
    readers[f"{name}.quantized"], readers[f"{name}.scale"] = quantized, scales
    result = f"{name}.dequantized"
    return helper.make_node(
        "DequantizeLinear", [f"{name}.quantized", f"{name}.scale", zero], [result], name=result, axis=1
    )


def _drop_unused(graph: onnx.GraphProto, readers: dict[str, Reader], weights: set[str]) -> None:
    """Remove the weights that no node reads any more: a float layer may share one with a quantized one."""
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name in weights - used]:
        graph.initializer.remove(tensor)
        readers.pop(tensor.name, None)


def _steering_the_scan(graph: onnx.GraphProto) -> Iterator[str]:
    """The nodes between a convolution and the scan's delta, B and C: x_proj and dt_proj."""
    makers = {name: node for node in graph.node for name in node.output}
    waiting = [n.input[i] for n in graph.node if n.op_type == selective_scan.NAME for i in _STEERING]
    seen: set[str] = set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.domain == "" and node.name not in seen:
            seen.add(node.name)
            yield node.name
            waiting.extend(node.input)


def _module(node: onnx.NodeProto, readers: dict[str, onnx.NodeProto], tensors: Mapping[str, onnx.TensorProto]) -> str:
    """The layer's name in the checkpoint where its weight or bias tells it, else the node's."""
    weight: str = node.input[1]
    if weight.endswith(".weight"):
        return weight.removesuffix(".weight")
    after = readers.get(node.output[0])
    bias = next((n for n in after.input if n in tensors and n.endswith(".bias")), None) if after is not None else None
    return bias.removesuffix(".bias") if bias else node.name
