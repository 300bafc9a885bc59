"""The selective scan and the causal convolution with gradients: in C++ where it can be compiled, else in PyTorch.

What storm_edge.plugins' operators compute, for states that start at zero; those have no gradients.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC", "-std=c++17")
_LANES, _CHUNK = 8, 32  # as in the C++ form: channels come in whole blocks, states are kept once a chunk of tokens


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, built on first use; None without a C++ compiler."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        return None
    key = hashlib.sha256(_SOURCE.read_bytes() + repr((compiler, _FLAGS)).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "storm-edge"
    built = folder / f"training-kernels-{key}.so"
    try:
        if not built.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                fresh = Path(scratch) / built.name
                subprocess.run(
                    [compiler, *_FLAGS, str(_SOURCE), "-o", str(fresh)], check=True, capture_output=True, timeout=300
                )
                fresh.replace(built)
        return ctypes.CDLL(str(built))
    except (OSError, subprocess.SubprocessError):
        return None


def _usable(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.shape[-1] % _LANES == 0 and library() is not None


def _call(name: str, sizes: tuple[int, ...], *tensors: Tensor) -> None:
    # batch, length, channels, state or width: long; reverse: int
    *longs, reverse = sizes
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in tensors]
    assert all(t.is_contiguous() and t.dtype == torch.float32 for t in tensors), name
    getattr(library(), name)(*map(ctypes.c_long, longs), ctypes.c_int(reverse), *pointers)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        *tensors, reverse = args
        u, delta, A, B, C, D, z, bias = (t.contiguous() for t in tensors)
        sizes = (*u.shape, A.shape[1], int(reverse))
        step, y = torch.empty_like(u), torch.empty_like(u)
        marks = u.new_empty(len(u), -(-u.shape[1] // _CHUNK), u.shape[2], A.shape[1])
        _call("scan_forward", sizes, u, delta, A, B, C, D, z, bias, step, y, marks)
        ctx.sizes = sizes
        ctx.save_for_backward(u, step, A, B, C, D, z, marks)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        u, step, A, B, C, D, z, marks = ctx.saved_tensors
        batch = len(u)
        du, ddelta, dz, dB, dC = (torch.empty_like(t) for t in (u, u, z, B, C))
        dA, dD, dbias = u.new_empty(batch, *A.shape), u.new_empty(batch, len(D)), u.new_empty(batch, len(D))
        outputs = du, ddelta, dA, dB, dC, dD, dz, dbias
        _call("scan_backward", ctx.sizes, u, step, A, B, C, D, z, marks, grads[0].contiguous(), *outputs)
        return du, ddelta, dA.sum(0), dB, dC, dD.sum(0), dz, dbias.sum(0), None


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        x, weight, bias, reverse = args
        x, taps, bias = x.contiguous(), weight.t().contiguous(), bias.contiguous()  # taps (width, channels)
        sizes = (*x.shape, len(taps), int(reverse))
        y = torch.empty_like(x)
        _call("conv_forward", sizes, x, taps, bias, y)
        ctx.sizes = sizes
        ctx.save_for_backward(x, taps, bias)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, taps, bias = ctx.saved_tensors
        dx, dtaps, dbias = torch.empty_like(x), x.new_empty(len(x), *taps.shape), x.new_empty(len(x), len(bias))
        _call("conv_backward", ctx.sizes, x, taps, bias, grads[0].contiguous(), dx, dtaps, dbias)
        return dx, dtaps.sum(0).t(), dbias.sum(0), None


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    reverse: bool = False,
) -> Tensor:
    """storm::SelectiveScan's y, from a state of zeros, with gradients for every tensor; shapes as in that operator."""
    if _usable(u):
        return _Scan.apply(u, delta, A, B, C, D, z, delta_bias, reverse)  # type: ignore[no-any-return, no-untyped-call]
    return scan_torch(u, delta, A, B, C, D, z, delta_bias, reverse)


def scan_torch(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    reverse: bool = False,
) -> Tensor:
    """`scan` in PyTorch's own operations: on any device, some ten times slower on a CPU."""
    step = functional.softplus(delta.float() + delta_bias, threshold=20.0)  # (batch, length, channels)
    decays = torch.exp(step[..., None] * A).unbind(1)  # each (batch, channels, state)
    inflows = ((step * u)[..., None] * B[:, :, None].float()).unbind(1)
    length = u.shape[1]
    state = torch.zeros_like(inflows[0])
    states = [state] * length
    for t in reversed(range(length)) if reverse else range(length):
        state = decays[t] * state + inflows[t]
        states[t] = state
    y = torch.einsum("blcn,bln->blc", torch.stack(states, 1), C.float()) + u * D
    return (y * functional.silu(z.float())).to(u.dtype)


def conv(x: Tensor, weight: Tensor, bias: Tensor, reverse: bool = False) -> Tensor:
    """storm::CausalConv1d's y, from a state of zeros, with gradients; weight (channels, width)."""
    if _usable(x):
        return _Conv.apply(x, weight, bias, reverse)  # type: ignore[no-any-return, no-untyped-call]
    width = weight.shape[1]
    taps, padding = (weight.flip(1), (0, width - 1)) if reverse else (weight, (width - 1, 0))
    padded = functional.pad(x.transpose(1, 2), padding)  # (batch, channels, length + width - 1)
    y = functional.conv1d(padded, taps[:, None], bias, groups=len(weight))
    return functional.silu(y).transpose(1, 2)
