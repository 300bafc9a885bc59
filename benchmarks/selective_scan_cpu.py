"""Measure SelectiveScan on this machine's CPU in all its forms; prints the report benchmarks/selective_scan_cpu.md.

Two threads. Rounds go through all forms one after the other and the best of each counts, so that other work on the
machine hits all alike; the processor time of that run stands beside its duration, because it tells what waiting cost.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from operator_forms import THREADS, Form, conditions, onnxruntime_form

from storm_edge.plugins import libraries
from storm_edge.plugins.cpu_kernels import cpu_kernels
from storm_edge.plugins.selective_scan.onnx_function import selective_scan_function
from storm_edge.plugins.selective_scan.op import SCHEMA
from storm_edge.plugins.selective_scan.torch_op import scan_token_by_token

# Vector operations that plugins/cpu/simd.h and plugins/selective_scan/cpu/kernel.h spend: on an exponential that is
# summed and nothing else, on a state and token, on a token's softplus, skip connection and gate.
FOR_PACE, FOR_STATE, FOR_TOKEN = 11, 13, 40
# Times as fast as the ONNX function and as the PyTorch loop with as many threads.
AIMS = (10, 50)


def random_inputs(length: int, channels: int, state: int) -> dict[str, np.ndarray]:
    """Inputs in Mamba's range by name, float32."""
    rng = np.random.default_rng(0)
    sizes = {"batch": 1, "length": length, "channels": channels, "state": state}
    inputs = {v.name: rng.standard_normal([sizes[a] for a in v.axes], dtype=np.float32) for v in SCHEMA.inputs}
    inputs["A"] = -np.arange(1, state + 1, dtype=np.float32) * rng.uniform(0.5, 1.5, (channels, state)).astype("f")
    inputs["delta_bias"] = rng.uniform(-7.0, -2.0, channels).astype(np.float32)
    return inputs


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
        onnxruntime_form(f"native in ONNX Runtime, {dtype}", SCHEMA, inputs, dtype)
        for dtype in ("float32", "float16", "bfloat16")
    ]
    function = onnxruntime_form(
        "ONNX function in ONNX Runtime, float32", SCHEMA, inputs, function=selective_scan_function()
    )
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

{conditions(kernels.instruction_set, load)}
Length {args.length}, {args.channels} channels, {args.state} states, batch 1, {THREADS} threads.

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
