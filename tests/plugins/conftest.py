"""What the tests of every operator and every form of it share: tolerances, one-node models, carrying states.

A form under test is a function `run(inputs, dtype, reverse) -> (y, final_state)`. `inputs` are float32 arrays by input
name whose values T can represent exactly; `dtype` names T; the outputs come back as float32.
"""

import ctypes
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from storm_edge.plugins import libraries
from storm_edge.plugins.cuda_kernels import CudaKernels
from storm_edge.plugins.op_schema import Schema, Value

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays, str, bool], tuple[np.ndarray, np.ndarray]]

# (relative, absolute). Half precision: what mamba_ssm grants its own kernels. float32: forms measure 6e-6 on this grid.
TOLERANCE = {"float32": (1e-4, 1e-4), "float16": (3e-3, 5e-3), "bfloat16": (3e-2, 5e-2)}
NUMPY_TYPE = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
ONNX_TYPE = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


@pytest.fixture(scope="session")
def assert_close() -> Callable[[np.ndarray, np.ndarray, str], None]:
    """assert_close(got, expected, dtype): equal as far as T's precision goes."""

    def check(got: np.ndarray, expected: np.ndarray, dtype: str) -> None:
        relative, absolute = TOLERANCE[dtype]
        np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=relative, atol=absolute)

    return check


@pytest.fixture(scope="session")
def representable() -> Callable[[Schema, Arrays, str], Arrays]:
    """representable(schema, arrays, dtype): float32 arrays, the inputs of type T rounded to what T can hold."""

    def rounded(schema: Schema, arrays: Arrays, dtype: str) -> Arrays:
        to = {value.name: NUMPY_TYPE[dtype if value.type == "T" else value.type] for value in schema.inputs}
        return {name: array.astype(to[name]).astype(np.float32) for name, array in arrays.items()}

    return rounded


@pytest.fixture(scope="session")
def one_node_model() -> Callable[..., onnx.ModelProto]:
    """one_node_model(schema, dtype, reverse, functions=(), opset=20): the operator alone, its types behind Casts.

    The model itself takes and gives float32, because numpy and the runtimes share no bfloat16; all sizes are dynamic.
    """

    def info(value: Value) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(value.name, TensorProto.FLOAT, list(value.axes))

    def build(
        schema: Schema,
        dtype: str,
        reverse: bool,
        functions: Sequence[onnx.FunctionProto] = (),
        opset: int = 20,
    ) -> onnx.ModelProto:
        def type_of(value: Value) -> int:
            return ONNX_TYPE[dtype if value.type == "T" else value.type]

        before = [helper.make_node("Cast", [v.name], [f"{v.name}_T"], to=type_of(v)) for v in schema.inputs]
        after = [helper.make_node("Cast", [f"{v.name}_T"], [v.name], to=TensorProto.FLOAT) for v in schema.outputs]
        node = helper.make_node(
            schema.name,
            [f"{value.name}_T" for value in schema.inputs],
            [f"{value.name}_T" for value in schema.outputs],
            domain=schema.domain,
            **schema.attributes(reverse),
        )
        graph = helper.make_graph(
            [*before, node, *after], "operator", [info(v) for v in schema.inputs], [info(v) for v in schema.outputs]
        )
        imports = [helper.make_opsetid("", opset), helper.make_opsetid(schema.domain, schema.version)]
        ir_version = helper.find_min_ir_version_for(imports[:1])
        return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=max(ir_version, 10))

    return build


@pytest.fixture(scope="session")
def run_onnxruntime() -> Callable[..., list[np.ndarray]]:
    """run_onnxruntime(model, inputs, options=None, provider="CPUExecutionProvider"): the outputs of a model."""

    def run(
        model: onnx.ModelProto,
        inputs: Arrays,
        options: onnxruntime.SessionOptions | None = None,
        provider: str = "CPUExecutionProvider",
    ) -> list[np.ndarray]:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options or onnxruntime.SessionOptions(), providers=[provider]
        )
        return list(session.run(None, inputs))

    return run


@pytest.fixture(scope="session")
def native_operators() -> Callable[..., onnxruntime.SessionOptions]:
    """native_operators(threads=2): options of a session with the native operators; skips where they are not built."""
    library = libraries.find_library(libraries.ONNXRUNTIME)
    if library is None:
        pytest.skip(f"{libraries.ONNXRUNTIME} is not built: run `make plugin`, which says what it lacks")

    def options(threads: int = 2) -> onnxruntime.SessionOptions:
        chosen = onnxruntime.SessionOptions()
        chosen.intra_op_num_threads = threads
        chosen.register_custom_ops_library(str(library))
        return chosen

    return options


@pytest.fixture(scope="session")
def built() -> Callable[[str], Path]:
    """built(name): a library or program of `make plugin`; skips where it has not been built."""

    def find(name: str) -> Path:
        path = libraries.find_library(name)
        if path is None:
            pytest.skip(f"{name} is not built: run `make plugin`, which says what it lacks")
        return path

    return find


@pytest.fixture(scope="session")
def cuda_kernels(built: Callable[[str], Path]) -> ctypes.CDLL:
    """The CUDA kernels behind functions that take host arrays (cuda/bridge.h); skips without a GPU."""
    library = ctypes.CDLL(str(built("libstorm_cuda_bridge.so")))
    if library.storm_cuda_devices() == 0:
        pytest.skip("no CUDA device: run `make test-gpu` on a machine with a GPU")
    sizes = [ctypes.c_int, *[ctypes.c_int64] * 4, ctypes.c_int]
    for function in (library.storm_cuda_scan, library.storm_cuda_conv):
        function.argtypes = [*sizes, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p, ctypes.c_void_p]
        function.restype = ctypes.c_char_p
    return library


@pytest.fixture
def count_cuda_calls(built: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[int]]:
    """count_cuda_calls(name): a list that grows by one whenever PyTorch runs this kernel of libstorm_cuda.so.

    So no test of a GPU passes on PyTorch's own form; skips where the library is not built.
    """
    built(libraries.CUDA)

    def count(name: str) -> list[int]:
        calls: list[int] = []
        kernel = getattr(CudaKernels, name)

        def counted(*given: Any) -> None:
            calls.append(1)
            kernel(*given)

        monkeypatch.setattr(CudaKernels, name, counted)
        return calls

    return count


@pytest.fixture(scope="session")
def run_cuda(cuda_kernels: ctypes.CDLL) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """run_cuda(schema, function name, sizes, inputs, dtype, reverse): the outputs of a CUDA kernel, as float32."""

    def run(
        schema: Schema, function: str, sizes: Sequence[str], inputs: Arrays, dtype: str, reverse: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        def numpy_type(value: Value) -> Any:
            return NUMPY_TYPE[dtype if value.type == "T" else value.type]

        given = [np.ascontiguousarray(inputs[v.name].astype(numpy_type(v))) for v in schema.inputs]
        axes = schema.check_shapes({v.name: array.shape for v, array in zip(schema.inputs, given, strict=True)})
        y = np.empty(given[0].shape, numpy_type(schema.outputs[0]))
        final_state = np.empty(given[-1].shape, numpy_type(schema.outputs[1]))
        pointers = (ctypes.c_void_p * len(given))(*(array.ctypes.data for array in given))
        error = getattr(cuda_kernels, function)(
            list(NUMPY_TYPE).index(dtype),
            *(axes[size] for size in sizes),
            int(reverse),
            pointers,
            y.ctypes.data,
            final_state.ctypes.data,
        )
        assert error is None, error.decode()
        return y.astype(np.float32), final_state.astype(np.float32)

    return run


@pytest.fixture(scope="session")
def run_cuda_provider(
    native_operators: Callable[..., onnxruntime.SessionOptions],
    one_node_model: Callable[..., onnx.ModelProto],
    run_onnxruntime: Callable[..., list[np.ndarray]],
) -> Callable[..., list[np.ndarray]]:
    """run_cuda_provider(schema, inputs, dtype, reverse): the native operator in ONNX Runtime on a GPU, else skips."""
    provider = "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA provider: run `make test-gpu` where onnxruntime-gpu is installed")

    def run(schema: Schema, inputs: Arrays, dtype: str, reverse: bool) -> list[np.ndarray]:
        options = native_operators()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return run_onnxruntime(one_node_model(schema, dtype, reverse), inputs, options, provider)

    return run


@pytest.fixture(scope="session")
def assert_pieces_equal_whole() -> Callable[..., None]:
    """assert_pieces_equal_whole(run, schema, inputs, cuts, reverse): carried states make pieces equal to the whole."""

    def check(run: Run, schema: Schema, inputs: Arrays, cuts: Sequence[int], reverse: bool) -> None:
        whole_y, whole_state = run(inputs, "float32", reverse)
        length = whole_y.shape[1]
        edges = [0, *cuts, length]
        spans = list(itertools.pairwise(edges))
        with_length = {value.name for value in schema.inputs if "length" in value.axes}
        state = inputs["initial_state"]
        ys: list[np.ndarray] = []
        for begin, end in reversed(spans) if reverse else spans:
            piece: dict[str, Any] = {n: a[:, begin:end] if n in with_length else a for n, a in inputs.items()}
            y, state = run({**piece, "initial_state": state}, "float32", reverse)
            ys.append(y)
        y = np.concatenate(ys[::-1] if reverse else ys, axis=1)
        np.testing.assert_allclose(y, whole_y, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state, whole_state, rtol=1e-5, atol=1e-6)

    return check
