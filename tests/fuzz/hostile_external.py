"""Attacks by external data of ONNX graphs: where it lies, and which part of a file it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from hostile import Scene, attack, seal, special
from onnx import TensorProto, helper, numpy_helper

STAGES = ("vision", "temporal", "decoder")
NUMBERS = (
    "-1", "-9223372036854775808", "9223372036854775807", "9223372036854775808", "99999999999999999999999", "nan", "1e3",
    "0x10", "", " 0", "+0", "1_0", "\u0664", "4095", "1", "-0", "65536", "73727", "1073741824",
)  # fmt: skip


def edit(scene: Scene, stage: str, change: Callable[[onnx.ModelProto], object]) -> None:
    """Change a stage's graph and seal the bundle."""
    path = scene.bundle / f"graphs/{stage}.onnx"
    model = onnx.load(path, load_external_data=False)
    change(model)
    scene.write(f"graphs/{stage}.onnx", model.SerializeToString())
    seal(scene.bundle)


def _external(
    location: str, dims: list[int], offset: str = "0", length: str | None = None, kind: int = 2
) -> TensorProto:
    tensor = TensorProto(name="attack", data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="offset", value=offset)
    if length is not None:
        tensor.external_data.add(key="length", value=length)
    return tensor


KINDS = ("link", "relative link", "FIFO", "folder", "link to /dev/zero", "link to a folder", "sparse file", "socket")
PLACES = (
    "../../outside/secret.data", "./../../outside/secret.data", "a/../../../outside/secret.data", "../manifest.json",
    "/dev/zero", "/dev/random", "", ".", "..", "decoder.data\x00", "x" * 5000, "\x1b[2J", "absolute", "beside",
)  # fmt: skip


def _location(scene: Scene) -> str:
    place: str = scene.rng.choice(PLACES)
    if place == "absolute":
        return str(scene.outside / "secret.data")
    if place == "beside":
        special(scene.bundle / "graphs/beside.data", scene.rng.choice(KINDS), scene.outside)
        return "beside.data"
    return place


@attack("external data")
def location_of_a_weight(scene: Scene) -> str:
    """A weight whose values lie elsewhere."""
    stage, location = scene.rng.choice(STAGES), _location(scene)

    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)
        next(entry for entry in tensor.external_data if entry.key == "location").value = location

    edit(scene, stage, change)
    return f"a weight of {stage} lies in {location[:40]!r}"


@attack("external data")
def location_of_nothing(scene: Scene) -> str:
    """An initializer that no node uses; as bytes it would be copied as it is."""
    stage, location = scene.rng.choice(STAGES), _location(scene)
    tensor = _external(location, [4096])
    edit(scene, stage, lambda model: model.graph.initializer.append(tensor))
    return f"an unused tensor of {stage} lies in {location[:40]!r}"


@attack("external data")
def location_in_a_node(scene: Scene) -> str:
    """External tensors in a Constant, a sub-graph, a function, or a sparse initializer."""
    stage, location = scene.rng.choice(STAGES), _location(scene)
    how = scene.rng.choice(("constant", "sub-graph", "function", "sparse", "training"))

    def change(model: onnx.ModelProto) -> None:
        constant = helper.make_node("Constant", [], ["attacked"], value=_external(location, [4096]))
        if how == "constant":
            model.graph.node.insert(0, constant)
        elif how == "sub-graph":
            value = helper.make_tensor_value_info("inner", 2, [4096])
            inner = helper.make_graph([helper.make_node("Identity", ["attack"], ["inner"])], "inner", [], [value])
            inner.initializer.append(_external(location, [4096]))
            model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
            node = helper.make_node("If", ["always"], ["unused"], then_branch=inner, else_branch=inner)
            model.graph.node.append(node)
        elif how == "function":
            function = helper.make_function("x", "F", [], ["attacked"], [constant], [helper.make_opsetid("", 20)])
            model.functions.append(function)
            model.opset_import.append(helper.make_opsetid("x", 1))
            model.graph.node.insert(0, helper.make_node("F", [], ["unused"], domain="x"))
        elif how == "sparse":
            sparse = model.graph.sparse_initializer.add()
            sparse.values.CopyFrom(_external(location, [16]))
            sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(16), "indices"))
            sparse.dims.append(4096)
        else:
            model.training_info.add().initialization.initializer.append(_external(location, [4096]))

    edit(scene, stage, change)
    return f"a {how} of {stage} lies in {location[:40]!r}"


@attack("external data")
def place_of_a_weight(scene: Scene) -> str:
    """Offsets and lengths that are none, beyond the file, or twice there."""
    stage, number = scene.rng.choice(STAGES), scene.rng.choice(NUMBERS)
    key = scene.rng.choice(("offset", "length", "both", "missing", "twice", "checksum"))

    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)
        entries = {entry.key: entry for entry in tensor.external_data}
        if key == "missing":
            del tensor.external_data[scene.rng.randrange(len(entries))]
        elif key in ("twice", "checksum"):
            tensor.external_data.add(key="offset" if key == "twice" else key, value=number)
        for name in ("offset", "length"):
            if key in (name, "both"):
                entries[name].value = number

    edit(scene, stage, change)
    return f"{key} of a weight of {stage} is {number!r}"
