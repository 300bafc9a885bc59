"""What this machine can do at most, measured: a matrix product, a copy and exponentials.

A limit is the best of some runs, since nothing makes a machine faster than it is. On a CPU the product is numpy's or
ONNX Runtime's, whichever is faster, so that a stage is not compared with a slow one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from storm_edge.runtime.bundle.onnx_messages import Model
from storm_edge.runtime.sessions.device import Device
from storm_edge.runtime.sessions.onnxruntime import create_session

SECONDS = 0.4  # that each measurement takes at least
LEAST_RUNS = 4
SIDE, SIDE_ON_GPU = 1536, 8192  # of the matrices
COPIED = 128 << 20  # bytes, beyond every cache
EXPONENTIALS = 1 << 15  # of a block, which stays in the cache of a core
_FLOAT, _UINT8, _INT8, _INT32 = 1, 2, 3, 6  # TensorProto.DataType


@dataclass(frozen=True)
class Limits:
    """Arithmetic by the precision of the matrices, in operations a second (two per multiply-add); bytes that a copy
    reads and writes a second; exponentials a second.
    """

    flops_per_second: dict[str, float]
    bytes_per_second: float
    exponentials_per_second: float


def measure_limits(device: Device, threads: int | None = None) -> Limits:
    """Measure for some seconds; `threads` of a CPU, by default all cores. Raises EngineError."""
    return _of_gpu(device) if device.memory == "cuda" else _of_cpu(threads or len(os.sched_getaffinity(0)))


def best_rate(work: Callable[[], object], amount: float) -> float:
    """`amount` over the seconds of the fastest run."""
    fastest, begun, runs = float("inf"), time.perf_counter(), 0
    while runs < LEAST_RUNS or time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - start)
        runs += 1
    return amount / fastest


def _of_cpu(threads: int) -> Limits:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIDE, SIDE), np.float32) for _ in range(2))
    operations = 2.0 * SIDE**3
    product = _product("MatMul", (_FLOAT, _FLOAT, _FLOAT), threads)
    fp32 = best_rate(lambda: product.run(None, {"a": a, "b": b}), operations)
    if threads == len(os.sched_getaffinity(0)):  # numpy takes all cores
        fp32 = max(fp32, best_rate(lambda: a @ b, operations))
    whole, signed = (rng.integers(0, 100, (SIDE, SIDE)).astype(t) for t in (np.uint8, np.int8))
    product = _product("MatMulInteger", (_UINT8, _INT8, _INT32), threads)
    int8 = best_rate(lambda: product.run(None, {"a": whole, "b": signed}), operations)
    source, copied = np.ones(COPIED, np.uint8), np.empty(COPIED, np.uint8)
    blocks = [rng.standard_normal(EXPONENTIALS, np.float32) for _ in range(threads)]
    found = [np.empty_like(block) for block in blocks]
    times = 64

    def exponentials(i: int) -> None:
        for _ in range(times):
            np.exp(blocks[i], out=found[i])

    with ThreadPoolExecutor(threads) as pool:

        def copy(i: int) -> None:
            part = slice(i * COPIED // threads, (i + 1) * COPIED // threads)
            np.copyto(copied[part], source[part])

        moved = best_rate(lambda: list(pool.map(copy, range(threads))), 2.0 * COPIED)
        raised = best_rate(lambda: list(pool.map(exponentials, range(threads))), times * EXPONENTIALS * threads)
    # Floating point in any type is computed in fp32 here, and weights of 4 bits are multiplied so.
    return Limits(dict.fromkeys(("fp32", "fp16", "bf16", "int4"), fp32) | {"int8": int8}, moved, raised)


def _of_gpu(device: Any) -> Limits:
    """By CuPy, in the device's stream; int8 and fp8 have no product there and are compared with fp16's."""
    cupy = device.cupy
    with device:
        rates = {}
        for precision in ("float32", "float16"):
            a, b, c = (cupy.ones((SIDE_ON_GPU, SIDE_ON_GPU), precision) for _ in range(3))
            rates[precision] = _timed(device, lambda: cupy.matmul(a, b, out=c), 2.0 * SIDE_ON_GPU**3)  # noqa: B023
        source, target = (cupy.ones(COPIED, "float32") for _ in range(2))
        moved = _timed(device, lambda: cupy.copyto(target, source), 8.0 * COPIED)
        raised = _timed(device, lambda: cupy.exp(source[: COPIED >> 4], out=target[: COPIED >> 4]), float(COPIED >> 4))
    half = dict.fromkeys(("fp16", "bf16", "int8", "fp8", "int4"), rates["float16"])
    return Limits(half | {"fp32": rates["float32"]}, moved, raised)


def _timed(device: Device, work: Callable[[], object], amount: float) -> float:
    """`best_rate` by the GPU's own clock."""
    fastest = float("inf")
    for _ in range(2 * LEAST_RUNS):
        begin = device.mark()
        work()
        fastest = min(fastest, device.seconds(begin, device.mark()))
    return amount / fastest


def _product(operator: str, types: tuple[int, int, int], threads: int) -> Any:
    """A session for c = a @ b; raises EngineError."""
    model = Model()
    model.ir_version = 8
    model.opset_import.add(version=13)
    model.graph.name = "product"
    model.graph.node.add(input=["a", "b"], output=["c"], op_type=operator)
    inputs, outputs = model.graph.input, model.graph.output
    for values, name, kind in zip((inputs, inputs, outputs), "abc", types, strict=True):
        value = values.add(name=name)
        value.type.tensor_type.elem_type = kind
        for _ in range(2):
            value.type.tensor_type.shape.dim.add(dim_value=SIDE)
    return create_session(Path("product"), threads, content=model.SerializeToString())
