"""Attacks by ONNX graphs: tensors, endless nodes, our operators, and other inputs and outputs."""

from __future__ import annotations

import numpy as np
import onnx
from hostile import BUILDING, Scene, attack, seal
from hostile_external import STAGES, edit
from mutate import mutate_bytes
from onnx import TensorProto, helper, numpy_helper

RUNNING = ("verify", "run", "eval", *BUILDING)


@attack("tensors")
def dims_of_a_weight(scene: Scene) -> str:
    """Shapes that overflow, are negative, empty or other than the data."""
    stage = scene.rng.choice(STAGES)
    shapes = ([-1], [-32, -64], [2**62, 4], [2**32, 2**32], [0], [], [2**31], [1] * 2000, [2**63 - 1], [10**9], [3, 5])
    dims, where = scene.rng.choice(shapes), scene.rng.choice(("inline", "external"))

    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if (tensor.data_location == TensorProto.EXTERNAL) == (where == "external"):
                tensor.dims[:] = dims
                break

    edit(scene, stage, change)
    return f"dims {str(dims)[:40]} in {stage}"


@attack("tensors")
def type_of_a_weight(scene: Scene) -> str:
    """Types that are none, that have no numbers, or other widths."""
    stage, kind = scene.rng.choice(STAGES), scene.rng.choice((0, 8, 9, 10, 11, 14, 16, 17, 22, 23, 999, -1))

    def change(model: onnx.ModelProto) -> None:
        scene.rng.choice(list(model.graph.initializer)).data_type = kind

    edit(scene, stage, change)
    return f"a weight of {stage} has type {kind}"


@attack("tensors")
def unread_values(scene: Scene) -> str:
    """Values twice, in the wrong field, or missing."""
    stage, how = (
        scene.rng.choice(STAGES),
        scene.rng.choice(("both", "short", "strings", "name", "same name", "no name")),
    )

    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.data_location != TensorProto.EXTERNAL)
        if how == "both":
            tensor.float_data.extend([1.0] * 1000)
        elif how == "short":
            tensor.raw_data = tensor.raw_data[:-1]
        elif how == "strings":
            tensor.string_data.append(b"\xff" * 100)
        elif how == "same name":
            model.graph.initializer.append(tensor)
        else:
            tensor.name = "" if how == "no name" else "n" * 3_000_000

    edit(scene, stage, change)
    return f"{how} values in {stage}"


@attack("nodes", RUNNING)
def endless_node(scene: Scene) -> str:
    """Loops that never end, and nodes whose outputs are as large as they say."""
    stage = scene.rng.choice(STAGES)
    how = scene.rng.choice(
        ("Loop", "Loop of conditions", "ConstantOfShape", "Expand", "Range", "Tile", "Pad", "Resize")
    )
    used = scene.rng.choice(("used", "used", "unused")) == "used"

    def change(model: onnx.ModelProto) -> None:
        def number(name: str, value: object, kind: type = np.int64) -> str:
            model.graph.initializer.append(numpy_helper.from_array(np.array(value, kind), name))
            return name

        large = 2**40
        kept = helper.make_node("Identity", ["going"], ["on"])
        if how.startswith("Loop"):
            infos = [helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("going", 9))]
            inner = helper.make_graph([kept], "inner", infos, [helper.make_tensor_value_info("on", 9, [])])
            count = number("trips", 2**62) if how == "Loop" else ""
            inner.input.append(helper.make_tensor_value_info("carried", 1, []))
            inner.node.append(helper.make_node("Neg", ["carried"], ["carried_on"]))
            inner.output.append(helper.make_tensor_value_info("carried_on", 1, []))
            inputs = [count, number("yes", True, np.bool_), number("zero", 0, np.float32)]
            nodes = [helper.make_node("Loop", inputs, ["endless"], body=inner)]
        else:
            one = number("one", [1.0], np.float32)
            inputs = {
                "ConstantOfShape": [number("shape", [large])],
                "Expand": [one, number("shape", [large])],
                "Range": [number("zero", 0), number("limit", large), number("step", 1)],
                "Tile": [one, number("repeats", [large])],
                "Pad": [one, number("pads", [0, large])],
                "Resize": [one, "", "", number("sizes", [large])],
            }[how]
            made = "made" if how == "Range" else "large"
            nodes = [helper.make_node(how, inputs, [made])]
            if how == "Range":
                nodes.append(helper.make_node("Cast", ["made"], ["large"], to=1))
            nodes.append(helper.make_node("ReduceMax", ["large"], ["endless"], keepdims=0))
        if used:  # of the last output, so that nothing is left out as unused
            output = model.graph.output[0].name
            for node in model.graph.node:
                node.output[:] = ["before" if name == output else name for name in node.output]
            nodes.append(helper.make_node("CastLike", ["endless", "before"], ["addend"]))
            nodes.append(helper.make_node("Add", ["before", "addend"], [output]))
        model.graph.node.extend(nodes)

    edit(scene, stage, change)
    return f"{how} in {stage}"


@attack("nodes", RUNNING)
def operator_inputs(scene: Scene) -> str:
    """Our operators with inputs missing, empty, swapped, of another type or rank, and odd attributes."""
    how = scene.rng.choice(
        ("few", "many", "empty", "swapped", "type", "rank", "attribute", "outputs", "bodiless", "value")
    )
    op = scene.rng.choice(("SelectiveScan", "CausalConv1d"))
    body = scene.rng.choice(("body", "bodiless"))

    def change(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.op_type == op)
        which = scene.rng.randrange(len(node.input))
        if how == "few":
            del node.input[scene.rng.choice((0, 1, which)) :]
        elif how == "many":
            node.input.extend([node.input[0]] * 100)
        elif how == "empty":
            node.input[which] = ""
        elif how == "swapped":
            other = scene.rng.randrange(len(node.input))
            node.input[which], node.input[other] = node.input[other], node.input[which]
        elif how in ("type", "rank", "value"):
            arrays = {"type": np.zeros((2, 3), np.int64), "rank": np.zeros((1,) * 7, np.float32)}
            array = arrays.get(how, np.full((64, 16), np.nan, np.float32))
            model.graph.initializer.append(numpy_helper.from_array(array, "odd"))
            node.input[which] = "odd"
        elif how == "attribute":
            del node.attribute[:]
            value = scene.rng.choice((2**62, -1, "one", 0.5, [1, 2]))
            node.attribute.append(helper.make_attribute(scene.rng.choice(("reverse", "plugin_version")), value))
        elif how == "outputs":
            node.output.extend(["more1", "more2", "more3"])
        if "bodiless" in (how, body):  # only the native operator is there
            del model.functions[:]

    edit(scene, "temporal", change)
    return f"{op} with {how}"


def _nested(depth: int) -> bytes:
    """The encoding of a graph with a node that has a graph, and so on: libraries refuse to make one."""

    def field(number: int, content: bytes) -> bytes:
        length, encoded = len(content), b""
        while length > 127:
            encoded, length = encoded + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + encoded + bytes([length]) + content

    graph = b""
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph)  # AttributeProto.g
        graph = field(1, field(4, b"If") + field(5, attribute))  # GraphProto.node
    return field(7, graph)  # ModelProto.graph


@attack("nodes")
def odd_model(scene: Scene) -> str:
    """Models that are none: other versions, recursion, deep nesting, names of megabytes, bytes at random."""
    stage = scene.rng.choice(STAGES)
    how = scene.rng.choice(
        ("bytes", "opset", "recursion", "nesting", "names", "empty", "cycle", "domain", "controls", "ir")
    )
    if how in ("bytes", "empty", "nesting"):
        data = (scene.bundle / f"graphs/{stage}.onnx").read_bytes()
        changed = {"bytes": mutate_bytes(data, scene.rng), "empty": b"", "nesting": data + _nested(3000)}
        scene.write(f"graphs/{stage}.onnx", changed[how])
        seal(scene.bundle)
        return f"{how} of {stage}"

    def change(model: onnx.ModelProto) -> None:
        node = model.graph.node[0]
        if how == "opset":
            model.opset_import[0].version = scene.rng.choice((-1, 0, 10**9, 2**62))
        elif how == "recursion":
            inner = helper.make_node("F", ["x"], ["y"], domain="x")
            model.functions.append(helper.make_function("x", "F", ["x"], ["y"], [inner], [helper.make_opsetid("x", 1)]))
            model.opset_import.append(helper.make_opsetid("x", 1))
            model.graph.node.append(helper.make_node("F", [node.output[0]], ["again"], domain="x"))
        elif how == "names":
            node.name, node.doc_string = "n" * 3_000_000, "d" * 3_000_000
        elif how == "cycle":
            node.input[0] = model.graph.node[-1].output[0]
        elif how == "domain":
            node.domain, node.op_type = "com.microsoft", scene.rng.choice(("PythonOp", "EPContext", "\x1b[2J\n"))
        elif how == "controls":
            node.op_type = "\x1b]0;owned\x07\nerror: all is well" * 100
        else:
            model.ir_version = 2**62

    edit(scene, stage, change)
    return f"{how} in {stage}"


@attack("contract", RUNNING)
def odd_inputs(scene: Scene) -> str:
    """Inputs and outputs of other names, types, ranks or numbers than the contract has; half say so in the manifest."""
    stage = scene.rng.choice(STAGES)
    side = scene.rng.choice(("input", "output"))
    how = scene.rng.choice(("name", "type", "rank", "more", "less", "dim", "none"))
    told = scene.rng.random() < 0.5

    def change(model: onnx.ModelProto) -> None:
        values = getattr(model.graph, side)
        value = scene.rng.choice(list(values))
        if how == "name":
            value.name = scene.rng.choice(("renamed", "", "\x1b[2J", "x" * 100_000))
        elif how == "type":
            value.type.tensor_type.elem_type = scene.rng.choice((2, 6, 7, 8, 9, 10, 16, 99))
        elif how == "rank":
            value.type.tensor_type.shape.dim.add().dim_value = 1
        elif how == "dim":
            value.type.tensor_type.shape.dim[-1].dim_value = scene.rng.choice((0, 7, 2**40, -5))
        elif how == "more":
            values.append(helper.make_tensor_value_info("more", 1, [1]))
        elif how == "less":
            values.remove(value)
        else:
            value.ClearField("type")

    edit(scene, stage, change)
    if told:
        data = scene.json("manifest.json")
        spec = data["graphs"][stage][f"{side}s"]
        spec[0] |= {"name": "renamed", "dtype": "float99", "shape": [2**70, "x" * 1000, -1]}
        scene.write("manifest.json", data)
        seal(scene.bundle)
    return f"{side} of {stage}: {how}" + (", told" if told else "")
