"""Cutting the temporal graph into pieces through which a clip of any length goes chunk by chunk.

A chunk of a bidirectional layer needs what the tokens after it leave in the backward convolution and scan. So that
direction is swept first, for its states alone, and then one forward sweep computes both. Layer i becomes `i.enter`
(norm and the half of in_proj that both directions read), `i.states` (the backward direction's states) and `i.mix` (all
the rest); `pool` follows the last. Their inputs and outputs: `piece_contract`.

Every large weight is in one piece only, and stays in the data file of the graph that was cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import helper

from storm_edge.export.graph_file import without_initializers
from storm_edge.plugins.causal_conv1d import op as causal_conv1d
from storm_edge.plugins.selective_scan import op as selective_scan
from storm_edge.runtime.bundle.contract import TensorSpec, piece_contract
from storm_edge.runtime.config.schema import DType, StormConfig

_U, _GATE, _SCAN_STATE = (selective_scan.INPUTS.index(name) for name in ("u", "z", "initial_state"))
_CONV_STATE = causal_conv1d.INPUTS.index("initial_state")
_TYPES: dict[int, DType] = {1: "float32", 10: "float16", 16: "bfloat16"}
VERSION = 1  # goes up when the pieces of a graph change
Names = dict[str, str]  # tensor of the whole graph -> its name in a piece


@dataclass(frozen=True)
class _Direction:
    """One direction of a layer: its two nodes, whose initial states are tensors of their own."""

    name: str
    conv: onnx.NodeProto
    scan: onnx.NodeProto

    def states(self) -> Names:
        """The states that go in."""
        conv, scan = self.conv.input[_CONV_STATE], self.scan.input[_SCAN_STATE]
        return {conv: f"{self.name}_conv_state", scan: f"{self.name}_scan_state"}

    def next_states(self) -> Names:
        """The states that come out."""
        conv, scan = self.conv.output[1], self.scan.output[1]
        return {conv: f"next_{self.name}_conv_state", scan: f"next_{self.name}_scan_state"}


@dataclass(frozen=True)
class _Layer:
    """`tokens` is the residual stream that goes in, `mixed` the one that comes out."""

    tokens: str
    x: str
    mixed: str
    directions: list[_Direction]


def cut_temporal(model: onnx.ModelProto, config: StormConfig) -> dict[str, onnx.ModelProto]:
    """The pieces by name, in the order in which a clip goes through them; none of a graph without layers.

    Initializers keep referring to where their values are. Raises ValueError for a graph whose layers are not what the
    exporter writes, the two halves of in_proj apart.
    """
    try:
        return _cut(model, config)
    except LookupError as e:
        raise ValueError(f"a layer lacks {e}") from e


def _cut(model: onnx.ModelProto, config: StormConfig) -> dict[str, onnx.ModelProto]:
    graph = _Graph(model)
    pieces: dict[str, onnx.ModelProto] = {}
    dtype = _TYPES[model.graph.input[0].type.tensor_type.elem_type]

    def add(name: str, inputs: Names, outputs: Names) -> None:
        pieces[name] = graph.piece(inputs, outputs, *piece_contract(config, dtype, name))

    layers = graph.layers()
    for i, layer in enumerate(layers):
        tokens, x = {layer.tokens: "tokens"}, {layer.x: "x"}
        forward, *backward = layer.directions
        add(f"{i}.enter", tokens, x)
        inputs = tokens | x | forward.states()
        for direction in backward:
            gate = {direction.scan.input[_GATE]: "x"}  # which changes y alone, and that is not asked for
            add(f"{i}.states", x | gate | direction.states(), direction.next_states())
            inputs |= direction.states()
        add(f"{i}.mix", inputs, {layer.mixed: "mixed"} | forward.next_states())
    if layers:
        add("pool", {layers[-1].mixed: "tokens"}, {model.graph.output[0].name: "visual_tokens"})
    return pieces


class _Graph:
    """A temporal graph whose convolutions and scans have initial states of their own."""

    def __init__(self, model: onnx.ModelProto):
        self._model = without_initializers(model)
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in self._model.graph.node:
            if node.domain == selective_scan.DOMAIN:
                at = _SCAN_STATE if node.op_type == selective_scan.NAME else _CONV_STATE
                node.input[at] = f"{node.name}.state"
        self._nodes = list(self._model.graph.node)
        self._producer = {name: node for node in self._nodes for name in node.output if name}

    def layers(self) -> list[_Layer]:
        """The layers, first to last: scans that share a gate belong together, the forward one first."""
        by_gate: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            if node.op_type == selective_scan.NAME:
                by_gate.setdefault(node.input[_GATE], []).append(node)
        return [self._layer(scans) for scans in by_gate.values()]

    def _layer(self, scans: list[onnx.NodeProto]) -> _Layer:
        directions = [
            _Direction(name, self._above(scan.input[_U], causal_conv1d.NAME), scan)
            for name, scan in zip(("forward", "backward"), scans, strict=False)
        ]
        x = directions[0].conv.input[0]
        if self._producer[x].op_type != "MatMul":
            raise ValueError("x and its gate come out of one product")
        tokens = self._above(x, "LayerNormalization").input[0]
        residual = [node for node in self._nodes if node.op_type == "Add" and tokens in node.input]
        return _Layer(tokens, x, residual[0].output[0], directions)

    def _above(self, name: str, op_type: str) -> onnx.NodeProto:
        """The nearest node of a type on the way up through first inputs."""
        node: onnx.NodeProto = self._producer[name]
        while node.op_type != op_type:
            node = self._producer[node.input[0]]
        return node

    def piece(self, inputs: Names, outputs: Names, takes: list[TensorSpec], gives: list[TensorSpec]) -> onnx.ModelProto:
        """What computes `outputs` from `inputs` alone, as a model of its own."""
        nodes, waiting = [], set(outputs)
        for node in reversed(self._nodes):
            if waiting.intersection(node.output):
                nodes.append(node)
                waiting.update(name for name in node.input if name and name not in inputs)
        names = inputs | outputs
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        graph = model.graph
        for field in ("node", "input", "output", "value_info"):
            graph.ClearField(field)
        for node in reversed(nodes):
            renamed = graph.node.add()
            renamed.CopyFrom(node)
            renamed.input[:] = [names.get(name, name) for name in node.input]
            renamed.output[:] = [names.get(name, name) for name in node.output]
        used = {name for node in graph.node for name in node.input}
        graph.initializer.extend(tensor for name, tensor in self._tensors.items() if name in used)
        graph.input.extend(map(_value, takes))
        graph.output.extend(map(_value, gives))
        operators = {(node.domain, node.op_type) for node in graph.node}
        functions = [f for f in model.functions if (f.domain, f.name) in operators]
        del model.functions[:]
        model.functions.extend(functions)
        return model


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _ELEMENTS[spec.dtype], spec.shape)


_ELEMENTS: Mapping[str, int] = {name: number for number, name in _TYPES.items()}
