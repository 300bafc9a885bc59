"""`storm::SelectiveScan` in PyTorch: a readable loop, and the native kernels in its place where they are built."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from storm_edge.plugins.cpu_kernels import cpu_kernels
from storm_edge.plugins.cuda_kernels import cuda_kernels
from storm_edge.plugins.native_kernels import MAXIMUM_STATE
from storm_edge.plugins.selective_scan.op import SCHEMA
from storm_edge.plugins.torch_common import call_cpu_kernel, call_cuda_kernel, call_operator


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    initial_state: Tensor,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Mamba's selective scan with gate; forward only, no gradients.

    u, delta, z: T[batch, length, channels]; B, C: T[batch, length, state]; A: f32[channels, state], negative;
    D, delta_bias: f32[channels]; initial_state: f32[batch, channels, state].
    T is float32, float16 or bfloat16, the arithmetic is float32 throughout.
    `reverse` runs from the last token to the first; nothing is flipped: the initial state is what lies after the last
    token, the final state what is left at the first.

    Returns y T[batch, length, channels] and final_state f32[batch, channels, state]. While `torch.onnx.export` traces
    it, the call becomes one storm::SelectiveScan node.
    Raises TypeError or ValueError naming the input that does not fit.
    Source: Gu and Dao, "Mamba", arXiv 2312.00752, algorithm 2, with the softplus, skip and gate around it.
    """
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    return call_operator(SCHEMA, _selective_scan, inputs, reverse)


@torch.library.custom_op("storm::selective_scan", mutates_args=())
def _selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    initial_state: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    inputs, state = (u, delta, A, B, C, D, z, delta_bias, initial_state), A.shape[1]
    sizes = (*u.shape, state)
    if u.device.type == "cpu" and state <= MAXIMUM_STATE and (on_cpu := cpu_kernels()):
        return call_cpu_kernel(on_cpu.selective_scan, inputs, sizes, reverse)
    if u.device.type == "cuda" and state <= MAXIMUM_STATE and (on_cuda := cuda_kernels()):
        workspace = on_cuda.selective_scan_workspace(sizes)
        return call_cuda_kernel(on_cuda.selective_scan, inputs, sizes, reverse, workspace)
    return scan_token_by_token(*inputs, reverse)


def scan_token_by_token(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    initial_state: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """The definition as a loop, on any device: the reference that every other form is measured against."""
    batch, length, channels = u.shape
    u32, z32, B32, C32 = u.float(), z.float(), B.float(), C.float()
    step = functional.softplus(delta.float() + delta_bias, threshold=20.0)  # (batch, length, channels)
    inflow = step * u32  # (batch, length, channels)
    y = torch.empty(batch, length, channels, dtype=torch.float32, device=u.device)
    state = initial_state.clone(memory_format=torch.contiguous_format)  # (batch, channels, state)
    decay = torch.empty_like(state)
    for t in reversed(range(length)) if reverse else range(length):
        torch.mul(step[:, t, :, None], A, out=decay).exp_()
        state.mul_(decay).addcmul_(inflow[:, t, :, None], B32[:, t, None, :])
        y[:, t] = torch.matmul(state, C32[:, t, :, None]).squeeze(-1)
    y.addcmul_(u32, D).mul_(functional.silu(z32))
    return y.to(u.dtype), state


@_selective_scan.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    initial_state: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    return u.new_empty(u.shape), initial_state.new_empty(initial_state.shape)
