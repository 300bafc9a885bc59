"""One operator alone in ONNX Runtime and how long a run takes: what the reports of both operators on a CPU measure."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

from storm_edge.plugins import libraries
from storm_edge.plugins.op_schema import Schema, Value
from storm_edge.runtime.machine.doctor import examine

THREADS = 2
NUMPY = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
ONNX = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


@dataclass
class Form:
    """One way to run an operator, and the best of its runs so far, in seconds."""

    name: str
    run: Callable[[], object]
    wall: float = float("inf")
    processor: float = float("inf")

    def measure(self) -> None:
        """Run once more."""
        wall, used = time.perf_counter(), time.process_time()
        self.run()
        used, wall = time.process_time() - used, time.perf_counter() - wall
        self.wall, self.processor = min(self.wall, wall), min(self.processor, used)


def onnxruntime_form(
    name: str,
    schema: Schema,
    inputs: Mapping[str, np.ndarray],
    dtype: str = "float32",
    function: onnx.FunctionProto | None = None,
) -> Form:
    """The operator alone in ONNX Runtime, native or as `function`; tensors stay where they are."""

    def type_of(value: Value) -> str:
        return dtype if value.type == "T" else value.type

    def info(value: Value) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(value.name, ONNX[type_of(value)], value.axes)

    node = helper.make_node(
        schema.name,
        [v.name for v in schema.inputs],
        [v.name for v in schema.outputs],
        domain=schema.domain,
        **schema.attributes(reverse=False),
    )
    graph = helper.make_graph([node], "g", [info(v) for v in schema.inputs], [info(v) for v in schema.outputs])
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(schema.domain, schema.version)]
    functions = [function] if function else []
    model = helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=10)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    if function is None:
        options.register_custom_ops_library(str(libraries.find_library(libraries.ONNXRUNTIME)))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    typed = [inputs[v.name].astype(NUMPY[type_of(v)]) for v in schema.inputs]
    made = [np.empty_like(typed[0]), np.empty_like(typed[-1])]  # y is like the first input, the state like the last
    for value, array in zip(schema.inputs, typed, strict=True):
        binding.bind_input(value.name, "cpu", 0, ONNX[type_of(value)], array.shape, array.ctypes.data)
    for value, array in zip(schema.outputs, made, strict=True):
        binding.bind_output(value.name, "cpu", 0, ONNX[type_of(value)], array.shape, array.ctypes.data)
    keep = (typed, made)  # the binding holds addresses only

    def run() -> object:
        session.run_with_iobinding(binding)
        return keep

    return Form(name, run)


def conditions(kernels: str, load: float) -> str:
    """When, where and with what: the first lines of a report; `load` is os.getloadavg()[0] before the measurement."""
    return f"""{time.strftime("%Y-%m-%d", time.gmtime())}; {examine()["machine"]["processor"]},
{len(os.sched_getaffinity(0))} cores, {os.uname().sysname};
ONNX Runtime {onnxruntime.__version__}, PyTorch {torch.__version__}; kernels for {kernels}.
When the measurement began, {load:.1f} other threads wanted the cores."""
