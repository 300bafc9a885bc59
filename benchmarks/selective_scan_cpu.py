"""Measure SelectiveScan on this machine's CPU in all its forms; prints the report benchmarks/selective_scan_cpu.md.

Two threads. Rounds go through all forms one after the other and the best of each counts, so that other work on the
machine hits all alike; the processor time of that run stands beside its duration, because it tells what waiting cost.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

from storm_edge.plugins import libraries
from storm_edge.plugins.cpu_kernels import cpu_kernels
from storm_edge.plugins.op_schema import Value
from storm_edge.plugins.selective_scan.onnx_function import selective_scan_function
from storm_edge.plugins.selective_scan.op import SCHEMA
from storm_edge.plugins.selective_scan.torch_op import scan_token_by_token
from storm_edge.runtime.doctor import examine

THREADS = 2
# Vector operations that plugins/cpu/simd.h and plugins/selective_scan/cpu/kernel.h spend: on an exponential that is
# summed and nothing else, on a state and token, on a token's softplus, skip connection and gate.
FOR_PACE, FOR_STATE, FOR_TOKEN = 11, 13, 40
# Times as fast as the ONNX function and as the PyTorch loop with as many threads.
AIMS = (10, 50)
NUMPY = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
ONNX = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


@dataclass
class Form:
    """One way to run the operator, and the best of its runs so far, in seconds."""

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


def random_inputs(length: int, channels: int, state: int) -> dict[str, np.ndarray]:
    """Inputs in Mamba's range by name, float32."""
    rng = np.random.default_rng(0)
    sizes = {"batch": 1, "length": length, "channels": channels, "state": state}
    inputs = {v.name: rng.standard_normal([sizes[a] for a in v.axes], dtype=np.float32) for v in SCHEMA.inputs}
    inputs["A"] = -np.arange(1, state + 1, dtype=np.float32) * rng.uniform(0.5, 1.5, (channels, state)).astype("f")
    inputs["delta_bias"] = rng.uniform(-7.0, -2.0, channels).astype(np.float32)
    return inputs


def onnxruntime_form(name: str, inputs: dict[str, np.ndarray], dtype: str, native: bool) -> Form:
    """The operator alone in ONNX Runtime, native or as its function; tensors stay where they are."""

    def info(value: Value) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(value.name, ONNX[dtype if value.type == "T" else value.type], value.axes)

    node = helper.make_node(
        SCHEMA.name,
        [v.name for v in SCHEMA.inputs],
        [v.name for v in SCHEMA.outputs],
        domain=SCHEMA.domain,
        **SCHEMA.attributes(reverse=False),
    )
    graph = helper.make_graph([node], "g", [info(v) for v in SCHEMA.inputs], [info(v) for v in SCHEMA.outputs])
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(SCHEMA.domain, SCHEMA.version)]
    model = helper.make_model(graph, opset_imports=imports, functions=[selective_scan_function()], ir_version=10)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    if native:
        options.register_custom_ops_library(str(libraries.find_library(libraries.ONNXRUNTIME)))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    typed = {v.name: inputs[v.name].astype(NUMPY[dtype if v.type == "T" else v.type]) for v in SCHEMA.inputs}
    for v in SCHEMA.inputs:
        kind = ONNX[dtype if v.type == "T" else v.type]
        binding.bind_input(v.name, "cpu", 0, kind, typed[v.name].shape, typed[v.name].ctypes.data)
    y, final_state = np.empty_like(typed["u"]), np.empty_like(typed["initial_state"])
    binding.bind_output("y", "cpu", 0, ONNX[dtype], y.shape, y.ctypes.data)
    binding.bind_output("final_state", "cpu", 0, TensorProto.FLOAT, final_state.shape, final_state.ctypes.data)
    keep = (typed, y, final_state)  # the binding holds addresses only

    def run() -> object:
        session.run_with_iobinding(binding)
        return keep

    return Form(name, run)


def torch_form(inputs: dict[str, np.ndarray], threads: int) -> Form:
    """The loop over tokens in PyTorch."""
    tensors = [torch.from_numpy(inputs[v.name]) for v in SCHEMA.inputs]

    def run() -> object:
        torch.set_num_threads(threads)
        return scan_token_by_token(*tensors, reverse=False)

    return Form(f"PyTorch loop, float32, {threads} thread{'s' if threads > 1 else ''}", run)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--channels", type=int, default=2304)
    parser.add_argument("--state", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    kernels = cpu_kernels()
    if kernels is None or libraries.find_library(libraries.ONNXRUNTIME) is None:
        raise SystemExit("error: the native libraries are not built: run `make plugin`")

    inputs = random_inputs(args.length, args.channels, args.state)
    native = [
        onnxruntime_form(f"native in ONNX Runtime, {dtype}", inputs, dtype, native=True)
        for dtype in ("float32", "float16", "bfloat16")
    ]
    function = onnxruntime_form("ONNX function in ONNX Runtime, float32", inputs, "float32", native=False)
    loops = [torch_form(inputs, threads) for threads in (1, THREADS)]
    pace = 0.0
    load = os.getloadavg()[0]
    with torch.no_grad():
        for round_ in range(args.rounds):
            for form in (*native, *native, *native):
                form.measure()
            if round_ < 2:  # they take seconds, and vary less
                for form in (function, *loops):
                    form.measure()
            pace = max(pace, kernels.exponentials_per_second())

    per_state, others = args.length * args.channels * args.state, 2 * args.length * args.channels
    best = native[0]
    reached = (per_state + others) / best.processor
    bound = FOR_PACE * (args.state + 2) / (FOR_STATE * args.state + FOR_TOKEN)
    fastest = (per_state + others) / pace / THREADS
    aims = [
        f"{aim} times as fast as the {name}: {'reached' if form.wall / best.wall >= aim else 'missed'},"
        f" {form.wall / best.wall:.1f} times"
        for aim, form, name in zip(AIMS, (function, loops[1]), ("ONNX function", "PyTorch loop"), strict=True)
    ]
    print(f"""# SelectiveScan on a CPU

{time.strftime("%Y-%m-%d", time.gmtime())}; {examine()["machine"]["processor"]},
{len(os.sched_getaffinity(0))} cores, {platform.system()};
ONNX Runtime {onnxruntime.__version__}, PyTorch {torch.__version__}; kernels for {kernels.instruction_set}.
Length {args.length}, {args.channels} channels, {args.state} states, batch 1, {THREADS} threads.
When the measurement began, {load:.1f} other threads wanted the cores.

    python benchmarks/{Path(__file__).name} --length {args.length} --channels {args.channels} --state {args.state}

Best of {args.rounds * 3} runs (function and loops: of {min(args.rounds, 2)}), taken in turns.
Processor time is the sum over the threads; divided by {THREADS} it is what a run takes where nothing else wants them.
PyTorch's threads burn it while they wait for each other at every token, the more the busier the machine is: for the
loop the processor time of one thread is the fair measure.

| form | ms | processor ms | times the native one, in ms | in processor ms |
|---|---|---|---|---|""")
    for form in (*native, function, *loops):
        print(
            f"| {form.name} | {1e3 * form.wall:.0f} | {1e3 * form.processor:.0f} | {form.wall / best.wall:.1f} "
            f"| {form.processor / best.processor:.1f} |"
        )
    print(f"""
Exponentials, float32: {per_state / 1e6:.0f} million in the recurrence, {others / 1e6:.0f} million in softplus and gate.
A core computes {pace / 1e9:.2f} billion a second when it does nothing else, from the first-level cache.
The kernel reaches {reached / 1e9:.2f} billion a second and core, {100 * reached / pace:.0f}%.
A state and token takes {FOR_STATE} vector operations, a token's softplus and gate {FOR_TOKEN} more, and where
exponentials are all there is to do, each takes {FOR_PACE}: that allows {100 * bound:.0f}%.
The rest goes into divisions, memory, and operations that wait for each other.

Aims, float32, in ms:

- {aims[0]};
- {aims[1]}. The exponentials alone, at that pace on {THREADS} cores,
  take {1e3 * fastest:.0f} ms: {loops[1].wall / fastest:.0f} times less than the loop.""")


if __name__ == "__main__":
    main()
