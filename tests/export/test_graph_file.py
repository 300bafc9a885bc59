import re
import tracemalloc

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from storm_edge.export.checkpoint.weights import LazyTensor
from storm_edge.export.graph_file import ALIGNMENT, StreamedModel, announce, save_model

RNG = np.random.default_rng(0)
BIG, SMALL = RNG.normal(size=(32, 16)).astype(np.float32), np.array([2.0], np.float32)
LAZY = RNG.normal(size=(16, 32)).astype(np.float32)


def _lazy(array):
    return LazyTensor(array.dtype, array.shape, lambda: array)


@pytest.fixture
def model():
    """x @ big @ lazy, doubled by a model-local function."""
    function = parser.parse_function('<domain: "local", opset_import: ["" : 24]> Scale (x, s) => (y) { y = Mul(x, s) }')
    nodes = [
        helper.make_node("MatMul", ["x", "big"], ["h"]),
        helper.make_node("MatMul", ["h", "lazy"], ["g"]),
        helper.make_node("Scale", ["g", "small"], ["y"], domain="local"),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32])],
        [numpy_helper.from_array(BIG, "big"), announce("lazy", _lazy(LAZY)), numpy_helper.from_array(SMALL, "small")],
    )
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10)


def test_a_saved_graph_checks_and_computes_what_its_tensors_say(model, tmp_path):
    path = tmp_path / "graph.onnx"
    StreamedModel(model, {"lazy": lambda: LAZY}).save(path, "graph.data")
    onnx.checker.check_model(str(path), full_check=True)
    x = RNG.normal(size=(1, 32)).astype(np.float32)
    (y,) = ort.InferenceSession(path).run(None, {"x": x})
    np.testing.assert_allclose(y, x @ BIG @ LAZY * 2, rtol=1e-4, atol=1e-5)


def test_large_tensors_lie_on_page_boundaries_of_one_file_and_small_ones_inside(model, tmp_path):
    save_model(model, tmp_path / "graph.onnx", "graph.data", {"lazy": lambda: LAZY})
    stored = {t.name: t for t in onnx.load(tmp_path / "graph.onnx", load_external_data=False).graph.initializer}
    assert stored["small"].data_location == TensorProto.DEFAULT
    places = {n: {e.key: e.value for e in stored[n].external_data} for n in ("big", "lazy")}
    assert {place["location"] for place in places.values()} == {"graph.data"}
    assert [int(place["offset"]) for place in places.values()] == [0, ALIGNMENT]
    data = (tmp_path / "graph.data").read_bytes()
    assert data[ALIGNMENT:] == LAZY.tobytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graph.data", "graph.onnx"]


def test_saving_again_replaces_both_files_by_the_same_bytes_and_leaves_the_model_alone(model, tmp_path):
    before = model.SerializeToString()
    for _ in range(2):
        save_model(model, tmp_path / "graph.onnx", "graph.data", {"lazy": lambda: LAZY})
    first = [p.read_bytes() for p in sorted(tmp_path.iterdir())]
    save_model(model, tmp_path / "graph.onnx", "graph.data", {"lazy": lambda: LAZY})
    assert [p.read_bytes() for p in sorted(tmp_path.iterdir())] == first
    assert model.SerializeToString() == before


def test_references_to_a_data_file_of_another_graph_are_kept(model, tmp_path):
    save_model(model, tmp_path / "graph.onnx", "graph.data", {"lazy": lambda: LAZY})
    second = onnx.load(tmp_path / "graph.onnx", load_external_data=False)
    second.graph.initializer[2].CopyFrom(numpy_helper.from_array(SMALL * 2, "small"))
    save_model(second, tmp_path / "second.onnx", "second.data")
    assert not (tmp_path / "second.data").exists()
    x = np.ones((1, 32), np.float32)
    one, two = (ort.InferenceSession(tmp_path / f"{name}.onnx").run(None, {"x": x})[0] for name in ("graph", "second"))
    np.testing.assert_allclose(two, one * 2, rtol=1e-6)


def test_bfloat16_and_values_in_typed_fields_are_stored(tmp_path):
    brain = RNG.normal(size=(64, 64)).astype(ml_dtypes.bfloat16)
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [1024], np.arange(1024, dtype=np.float32))
    graph = helper.make_graph([], "test", [], [], [announce("brain", _lazy(brain)), typed])
    save_model(helper.make_model(graph), tmp_path / "graph.onnx", "graph.data", {"brain": lambda: brain})
    found = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "graph.onnx").graph.initializer}
    np.testing.assert_array_equal(found["brain"], brain)
    np.testing.assert_array_equal(found["typed"], np.arange(1024))


def test_wrong_readers_and_paths_are_refused(model, tmp_path):
    path = tmp_path / "graph.onnx"
    with pytest.raises(ValueError, match=re.escape("lazy was announced as float32[16, 32]")):
        save_model(model, path, "graph.data", {"lazy": lambda: LAZY.T})
    with pytest.raises(ValueError, match="no initializer is called other"):
        save_model(model, path, "graph.data", {"other": lambda: LAZY})
    with pytest.raises(ValueError, match="not a plain file name"):
        save_model(model, path, "../graph.data", {"lazy": lambda: LAZY})


def test_tensors_pass_through_memory_one_at_a_time(tmp_path):
    count, shape = 8, (1024, 256)  # 1 MiB each
    tensors = {
        f"t{i}": LazyTensor(np.dtype(np.float32), shape, lambda: np.ones(shape, np.float32)) for i in range(count)
    }
    graph = helper.make_graph([], "test", [], [], [announce(name, tensor) for name, tensor in tensors.items()])
    model = helper.make_model(graph)
    tracemalloc.start()
    save_model(model, tmp_path / "graph.onnx", "graph.data", {name: tensor.read for name, tensor in tensors.items()})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * 2**20
    assert (tmp_path / "graph.data").stat().st_size == count * 2**20
