"""Measure CausalConv1d on this machine's CPU in all its forms; prints the report benchmarks/causal_conv1d_cpu.md.

    make plugin && python benchmarks/causal_conv1d_cpu.py > benchmarks/causal_conv1d_cpu.md

The operator moves much and computes little, so its limit is memory: the report says how near to a copy it comes.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from operator_forms import NUMPY, THREADS, Form, conditions, onnxruntime_form
from torch.nn import functional

from storm_edge.plugins import libraries
from storm_edge.plugins.causal_conv1d.onnx_function import causal_conv1d_function
from storm_edge.plugins.causal_conv1d.op import SCHEMA
from storm_edge.plugins.causal_conv1d.torch_op import convolve_tap_by_tap
from storm_edge.plugins.cpu_kernels import cpu_kernels

WIDTH = 4  # Mamba's


def random_inputs(length: int, channels: int) -> dict[str, np.ndarray]:
    """Inputs by name, float32."""
    rng = np.random.default_rng(0)
    sizes = {"batch": 1, "length": length, "channels": channels, "width": WIDTH, "width-1": WIDTH - 1}
    return {v.name: rng.standard_normal([sizes[a] for a in v.axes], dtype=np.float32) for v in SCHEMA.inputs}


def copy_form(dtype: str, elements: int) -> Form:
    """As many bytes read and written as the operator must: the tokens once each, by the same number of threads."""
    source = np.zeros(elements, NUMPY[dtype])
    target = np.empty_like(source)
    pieces = list(zip(np.array_split(source, THREADS), np.array_split(target, THREADS), strict=True))
    pool = ThreadPoolExecutor(THREADS)

    def run() -> object:
        return list(pool.map(lambda piece: np.copyto(piece[1], piece[0]), pieces))  # numpy lets other threads run

    return Form(f"copy, {dtype}", run)


def torch_forms(inputs: dict[str, np.ndarray]) -> list[Form]:
    """PyTorch's own operators: the reference, and its Conv1d, which wants channels before tokens."""
    x, weight, bias, state = (torch.from_numpy(inputs[v.name]) for v in SCHEMA.inputs)

    def convolved() -> object:
        tokens = torch.cat((state, x), dim=1).transpose(1, 2)  # (batch, channels, width - 1 + length)
        y = functional.conv1d(tokens, weight[:, None], bias, groups=weight.shape[0])
        return functional.silu(y).transpose(1, 2).contiguous()

    torch.set_num_threads(THREADS)
    return [
        Form("PyTorch tap by tap, float32", lambda: convolve_tap_by_tap(x, weight, bias, state, reverse=False)),
        Form("PyTorch Conv1d and SiLU, float32", convolved),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--channels", type=int, default=2304)
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()
    kernels = cpu_kernels()
    if kernels is None or libraries.find_library(libraries.ONNXRUNTIME) is None:
        raise SystemExit("error: the native libraries are not built: run `make plugin`")

    inputs, elements = random_inputs(args.length, args.channels), args.length * args.channels
    dtypes = ("float32", "float16", "bfloat16")
    native = [onnxruntime_form(f"native in ONNX Runtime, {dtype}", SCHEMA, inputs, dtype) for dtype in dtypes]
    copies = [copy_form(dtype, elements) for dtype in ("float32", "float16")]
    function = causal_conv1d_function(WIDTH)
    others = [
        onnxruntime_form("ONNX function in ONNX Runtime, float32", SCHEMA, inputs, function=function),
        *torch_forms(inputs),
    ]
    load = os.getloadavg()[0]
    with torch.no_grad():
        for _ in range(args.rounds):
            for form in (*native, *copies, *others):
                form.measure()

    print(f"""# CausalConv1d on a CPU

{conditions(kernels.instruction_set, load)}
Length {args.length}, {args.channels} channels, width {WIDTH}, batch 1, {THREADS} threads.

    python benchmarks/causal_conv1d_cpu.py --length {args.length} --channels {args.channels}

Best of {args.rounds} runs, taken in turns. Processor time is the sum over the threads. GB/s: x read once and y written
once, over the time; a copy of as many bytes is what memory allows.

| form | ms | processor ms | GB/s | times the native one of float32, in ms |
|---|---|---|---|---|""")
    for form in (*native, *copies, *others):
        moved = 2 * elements * NUMPY[form.name.rsplit(", ", 1)[1]].itemsize
        print(
            f"| {form.name} | {1e3 * form.wall:.1f} | {1e3 * form.processor:.1f} | {moved / form.wall / 1e9:.1f} "
            f"| {form.wall / native[0].wall:.1f} |"
        )


if __name__ == "__main__":
    main()
