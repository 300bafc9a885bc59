"""The CUDA selective scan against the GPU's own limits and against mamba_ssm's kernel; prints Markdown.

    make plugin && python benchmarks/selective_scan_gpu.py > benchmarks/selective_scan_gpu.md

Where mamba_ssm (built with its Mamba-1 kernel) and PyTorch with CUDA are installed, it is measured beside ours, forward
only, in its own layout. Without a GPU the report says so and gives the compiler's figures.
"""

from __future__ import annotations

import ctypes
import datetime
import importlib.util
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from storm_edge.plugins.libraries import find_library

BATCH, CHANNELS, STATE = 1, 7168, 16
LENGTHS = (8192, 16384, 32768, 65536, 131072)
BFLOAT16, BFLOAT16_BYTES = 2, 2
REPEATS = 10
# Of a token and channel: a state's decay each; a state's share in the decay of a chunk of 64 tokens; an exponential in
# softplus, an exponential and a reciprocal in SiLU, which run on the same unit.
SPECIAL_FUNCTIONS = STATE + STATE / 64 + 3
PTXAS = Path(__file__).parents[1] / "plugins" / "selective_scan" / "cuda" / "ptxas.txt"


def load_bridge() -> ctypes.CDLL | None:
    """The kernels behind functions for tests, or None where they are not built or there is no GPU."""
    path = find_library("libstorm_cuda_bridge.so")
    library = ctypes.CDLL(str(path)) if path else None
    if library is None or library.storm_cuda_devices() == 0:
        return None
    library.storm_cuda_time_scan.argtypes = [ctypes.c_int, *[ctypes.c_int64] * 4, ctypes.c_int, ctypes.c_int]
    for function in ("storm_cuda_time_scan", "storm_cuda_exponential_rate", "storm_cuda_bandwidth"):
        getattr(library, function).restype = ctypes.c_double
    return library


def bytes_moved(length: int) -> float:
    """u, delta, z and y once, B and C once; what lies in the caches is free."""
    return BFLOAT16_BYTES * BATCH * length * (4 * CHANNELS + 2 * STATE)


def mamba_seconds(length: int) -> float | None:
    """One forward scan of mamba_ssm's kernel, or None where it cannot be run."""
    if importlib.util.find_spec("mamba_ssm") is None or importlib.util.find_spec("torch") is None:
        return None
    try:
        return _mamba_seconds(length)
    except (ImportError, RuntimeError) as e:  # built for another PyTorch or GPU, or no memory left
        print(f"mamba_ssm at {length} tokens: {e}", file=sys.stderr)
        return None


def _mamba_seconds(length: int) -> float:
    import torch
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.randn(*shape, device="cuda", dtype=dtype)

    u, delta, z = (random(BATCH, CHANNELS, length) for _ in range(3))
    A = -random(CHANNELS, STATE, dtype=torch.float32).exp()
    B, C = (random(BATCH, STATE, length) for _ in range(2))
    D, bias = (random(CHANNELS, dtype=torch.float32) for _ in range(2))
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.no_grad():
        for i in range(REPEATS + 1):
            if i == 1:
                begin.record()
            selective_scan_fn(u, delta, A, B, C, D, z, bias, delta_softplus=True)
        end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) * 1e-3 / REPEATS


def scans(bridge: ctypes.CDLL) -> dict[str, Any]:
    """The GPU's limits, and every scan's seconds beside what they allow; ends before lengths it has no memory for."""
    exponentials, bandwidth = bridge.storm_cuda_exponential_rate(), bridge.storm_cuda_bandwidth()
    rows = []
    for length in LENGTHS:
        other = mamba_seconds(length)
        for reverse in (False, True):
            seconds = bridge.storm_cuda_time_scan(BFLOAT16, BATCH, length, CHANNELS, STATE, int(reverse), REPEATS)
            if seconds <= 0:
                break
            elements, in_bytes = BATCH * length * CHANNELS, bytes_moved(length) / bandwidth
            rows.append(
                {
                    "length": length,
                    "direction": "reverse" if reverse else "forward",
                    "seconds": seconds,
                    "bytes": bytes_moved(length),
                    "floor": max(in_bytes, elements * STATE / exponentials),
                    "whole": max(in_bytes, elements * SPECIAL_FUNCTIONS / exponentials),
                    "mamba_seconds": other,
                }
            )
    sizes = {"batch": BATCH, "channels": CHANNELS, "state": STATE}
    return {"exponentials": exponentials, "bandwidth": bandwidth, **sizes, "scans": rows}


def measured(bridge: ctypes.CDLL) -> list[str]:
    """The report of a machine with a GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm", "--format=csv,noheader"]
    gpu = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    found = scans(bridge)
    lines = [
        f"GPU: {gpu}. Measured limits: {found['exponentials'] / 1e12:.2f} T exponentials/s,"
        f" {found['bandwidth'] / 1e12:.2f} TB/s.",
        "",
        "`floor` is the larger of the bytes over the bandwidth and the state's exponentials over their rate; `all`"
        " counts every use of the special function unit, softplus and SiLU included.",
        "",
        "| tokens | direction | ms | GB/s | T exp/s | floor ms | % of floor | % of all | mamba_ssm ms | times |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["scans"]:
        seconds, other = row["seconds"], row["mamba_seconds"]
        exponentials = BATCH * row["length"] * CHANNELS * STATE / seconds
        lines.append(
            f"| {row['length']} | {row['direction']} | {seconds * 1e3:.3f} | {row['bytes'] / seconds / 1e9:.0f} |"
            f" {exponentials / 1e12:.2f} | {row['floor'] * 1e3:.3f} | {100 * row['floor'] / seconds:.0f} |"
            f" {100 * row['whole'] / seconds:.0f} |"
            + (f" {other * 1e3:.3f} | {other / seconds:.1f} |" if other else " not measured | |")
        )
    return lines


def not_measured() -> list[str]:
    """The report of a machine without one."""
    return [
        "**No GPU was available. The kernels were compiled and never run; nothing below is a time.**",
        "",
        "What was checked without a GPU: the algorithm, by playing its blocks on the CPU from the same headers"
        " (tests/plugins/selective_scan/cuda), and what the compiler made of it:",
        "",
        "```",
        PTXAS.read_text(encoding="utf-8").strip(),
        "```",
        "",
        "To measure, on a machine with an NVIDIA GPU and nvcc: `make test-gpu`, then the command above. For the"
        " comparison, PyTorch with CUDA and mamba-ssm, built from its source with the Mamba-1 kernel switched on.",
    ]


def main() -> None:
    """Print the report."""
    bridge = load_bridge()
    print("# The selective scan on a GPU\n")
    print(f"`python benchmarks/selective_scan_gpu.py`, {datetime.date.today()}, {platform.machine()}.")
    print(f"bf16, batch {BATCH}, {CHANNELS} channels, {STATE} states.\n")
    print("\n".join(not_measured() if bridge is None else measured(bridge)))


if __name__ == "__main__":
    main()
