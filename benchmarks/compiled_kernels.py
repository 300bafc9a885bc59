"""What the compiler makes of an operator's CUDA kernels, for every type and SM; prints a table.

    python benchmarks/compiled_kernels.py selective_scan > plugins/selective_scan/cuda/ptxas.txt
    python benchmarks/compiled_kernels.py causal_conv1d > plugins/causal_conv1d/cuda/ptxas.txt

Needs nvcc and nvdisasm (`pip install nvidia-cuda-nvdisasm`), and no GPU. Names of SMs as further arguments: only those.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sass import EXPONENTIAL, Kernel, find_nvdisasm, loads_in_flight, read, state_loop

from storm_edge.plugins.build import find_nvcc

SOURCE = Path(__file__).resolve().parents[1] / "plugins"
TYPES = ("float32", "float16", "bfloat16")
SMS = (80, 86, 87, 89, 90, 100, 110, 120)
ACCOUNTED = ("bfloat16", (87, 90))  # whose main loop is listed by kind


@dataclass(frozen=True)
class Compiled:
    """A kernel, how many states or which width it is made for ("any" for all others), and what ptxas says of it."""

    made_for: str
    kernel: Kernel
    registers: int
    spilled: int  # bytes, stores and loads
    stack: int
    shared: int


def compile_kernels(operator: str, dtype: str, sm: int, nvcc: str, nvdisasm: str) -> list[Compiled]:
    """The kernels of one type for one SM; raises CalledProcessError where the compiler refuses them."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        command = [
            nvcc,
            "-std=c++17",
            "-O3",
            f"-I{SOURCE}",
            f"-gencode=arch=compute_{sm},code=sm_{sm}",
            "-Xptxas",
            "-v",
        ]
        source = SOURCE / operator / "cuda" / f"{dtype}.cu"
        told = subprocess.run(
            [*command, "-cubin", "-o", cubin, source], check=True, capture_output=True, text=True
        ).stderr
        kernels = read(cubin, nvdisasm)
    found = []
    for block in re.split(r"Compiling entry function ", told)[1:]:
        name = block.split("'")[1]
        number = {key: int(n) for n, key in re.findall(r"(\d+) (registers|bytes smem|bytes stack frame)", block)}
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", block)))
        made_for = (re.search(r"Li(\d+)E", name) or ["", "0"])[1]
        found.append(
            Compiled(
                made_for if made_for != "0" else "any",
                kernels[name],
                number["registers"],
                spilled,
                number["bytes stack frame"],
                number.get("bytes smem", 0),
            )
        )
    return sorted(found, key=lambda kernel: kernel.made_for)


def columns(operator: str, compiled: Compiled) -> list[str]:
    """What the SASS says of a kernel that moves vectors: the loads, and of the scan its loop over the states."""
    kernel = compiled.kernel
    if compiled.made_for == "any":
        return ["", "", ""]
    if operator == "causal_conv1d":
        return ["{} of {}".format(*loads_in_flight(kernel.block_of_loads())), "", ""]
    loop = state_loop(kernel)
    loads = "{} of {}".format(*loads_in_flight(kernel.path(0, kernel.main_loop()[0])))
    return [loads, f"{loop.mean:.1f}", str(loop.kinds[EXPONENTIAL])]


def table(operator: str, sms: tuple[int, ...], nvcc: str, nvdisasm: str) -> Iterator[str]:
    """The lines of the report."""
    version = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    yield " ".join(["# python benchmarks/compiled_kernels.py", operator, *map(str, () if sms == SMS else sms)])
    yield "# nvcc " + (re.search(r"V([0-9.]+)", version) or ["", "?"])[1]
    yield "# for: the states or the width that a kernel is made for; any: the one for all others"
    yield "# loads: issued before the first is waited for, of those of a thread"
    if operator == "selective_scan":
        yield "# issued, exp: instructions and exponentials of a warp for one state of its 8 tokens of 64 channels"
    form = "{:<9} {:<4} {:<4} {:>9} {:>7} {:>6} {:>7} {:>9} {:>7} {:>4}"
    loop = ("issued", "exp") if operator == "selective_scan" else ("", "")
    yield form.format("type", "for", "SM", "registers", "spilled", "stack", "shared", "loads", *loop).rstrip()
    accounts = []
    for dtype in TYPES:
        for sm in sms:
            for found in compile_kernels(operator, dtype, sm, nvcc, nvdisasm):
                numbers = (found.registers, found.spilled, found.stack, found.shared)
                yield form.format(dtype, found.made_for, sm, *numbers, *columns(operator, found)).rstrip()
                listed = dtype == ACCOUNTED[0] and sm in ACCOUNTED[1] and found.made_for != "any"
                if operator == "selective_scan" and listed:
                    accounts += account(dtype, sm, found.kernel)
    yield from accounts


def account(dtype: str, sm: int, kernel: Kernel) -> list[str]:
    """The main loop of the scan by kind of instruction."""
    loop = state_loop(kernel)
    kinds = [f"{count} {kind}" for kind, count in loop.kinds.most_common()]
    return [
        "",
        f"{dtype}, SM {sm}: {len(loop.common)} instructions a warp and state, {loop.speaking} more in one of 8 warps:",
        *("  " + ", ".join(kinds[i : i + 10]) for i in range(0, len(kinds), 10)),
    ]


def main() -> None:
    """Print the report of the operator that is named."""
    nvcc, nvdisasm = find_nvcc(), find_nvdisasm()
    if nvcc is None or nvdisasm is None:
        sys.exit("needs nvcc and nvdisasm: install the CUDA toolkit, or `pip install nvidia-cuda-nvdisasm`")
    operator, *sms = sys.argv[1:]
    for line in table(operator, tuple(map(int, sms)) or SMS, nvcc, nvdisasm):
        print(line, flush=True)


if __name__ == "__main__":
    main()
