"""The plugin library inside TensorRT for RTX, which builds engines without a GPU: the whole temporal graph."""

import importlib.util

import onnx
import pytest

from storm_edge.export.build.tensorrt.compile import compile_graph
from storm_edge.export.build.tensorrt.compile_job import CompileJob, ProfileShapes
from storm_edge.export.passes.narrow import narrow
from storm_edge.plugins import libraries

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="no TensorRT for RTX: pip install tensorrt-rtx"
)


@pytest.fixture(scope="module")
def plugins(built):
    """The libraries for the builder."""
    return [str(built(libraries.TENSORRT))]


@pytest.fixture(scope="module")
def temporal(plugins, request, tmp_path_factory):
    """temporal(dtype): the bundle's temporal graph in half precision, functions and all, in a file of its own."""
    bundle = request.getfixturevalue("bundle")  # takes its time, so only where there is a plugin to test

    def narrowed(dtype):
        model = onnx.load(bundle / "graphs" / "temporal.onnx")
        narrow(model, {}, dtype)
        path = tmp_path_factory.mktemp("temporal") / f"{dtype}.onnx"
        onnx.save(model, path)
        return path, model

    return narrowed


@pytest.mark.parametrize(("dtype", "sm"), [("float16", 86), ("float16", 89), ("float16", 120), ("bfloat16", 89)])
def test_the_temporal_graph_becomes_an_engine_with_both_plugins(dtype, sm, temporal, plugins, tmp_path):
    path, model = temporal(dtype)
    (tokens,) = model.graph.input
    rest = [dim.dim_value for dim in tokens.type.tensor_type.shape.dim][2:]
    frames = ProfileShapes(min=[1, 4, *rest], opt=[1, 16, *rest], max=[1, 64, *rest])
    engine = tmp_path / "temporal.engine"
    result = compile_graph(
        CompileJob(
            package="tensorrt_rtx",
            graph=str(path),
            engine=str(engine),
            profiles=[{tokens.name: frames}],
            plugins=plugins,
            compute_capabilities=[sm],
        )
    )
    nodes = [node for node in model.graph.node if node.domain == "storm"]
    assert {node.op_type for node in nodes} == {"SelectiveScan", "CausalConv1d"}
    assert result.layers.plugins == len(nodes)
    content = engine.read_bytes()
    for name in (b"SelectiveScan", b"CausalConv1d"):
        assert name in content
