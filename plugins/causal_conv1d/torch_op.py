"""`storm::CausalConv1d` in PyTorch: readable sums, and the native kernels in their place where they are built."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from storm_edge.plugins.causal_conv1d.op import SCHEMA
from storm_edge.plugins.cpu_kernels import MAXIMUM_WIDTH, cpu_kernels
from storm_edge.plugins.cuda_kernels import cuda_kernels
from storm_edge.plugins.torch_common import call_cpu_kernel, call_cuda_kernel, call_operator


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor, initial_state: Tensor, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Causal depthwise convolution over the tokens, then SiLU; forward only, no gradients.

    x: T[batch, length, channels]; weight: T[channels, width], its last column weighs the token itself;
    bias: T[channels]; initial_state: T[batch, width-1, channels], the tokens before the first, in token order.
    T is float32, float16 or bfloat16, the arithmetic is float32 throughout.
    `reverse` runs from the last token to the first: the initial state is the tokens after the last one, again in token
    order, and the final state is the first tokens.

    Returns y T[batch, length, channels] and final_state T[batch, width-1, channels]. While `torch.onnx.export` traces
    it, the call becomes one storm::CausalConv1d node.
    Raises TypeError or ValueError naming the input that does not fit.
    Source: Gu and Dao, "Mamba", arXiv 2312.00752, section 3.4.
    """
    return call_operator(SCHEMA, _causal_conv1d, (x, weight, bias, initial_state), reverse)


@torch.library.custom_op("storm::causal_conv1d", mutates_args=())
def _causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor, initial_state: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    inputs, width = (x, weight, bias, initial_state), weight.shape[1]
    sizes = (*x.shape, width)
    if x.device.type == "cpu" and width <= MAXIMUM_WIDTH and (on_cpu := cpu_kernels()):
        return call_cpu_kernel(on_cpu.causal_conv1d, inputs, sizes, reverse)
    if x.device.type == "cuda" and (on_cuda := cuda_kernels()):
        return call_cuda_kernel(on_cuda.causal_conv1d, inputs, sizes, reverse)
    return convolve_tap_by_tap(*inputs, reverse)


def convolve_tap_by_tap(
    x: Tensor, weight: Tensor, bias: Tensor, initial_state: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """The definition, on any device: the reference that every other form is measured against."""
    length, kept = x.shape[1], weight.shape[1] - 1
    tokens = torch.cat((x, initial_state) if reverse else (initial_state, x), dim=1)  # (batch, length + kept, channels)
    taps = weight.flip(1) if reverse else weight
    y = bias.float().expand(x.shape).clone()  # (batch, length, channels)
    for tap in range(kept + 1):
        y.addcmul_(tokens[:, tap : tap + length].float(), taps[:, tap].float())
    # A copy, because a view would keep all tokens alive.
    final_state = tokens[:, :kept] if reverse else tokens[:, length:]
    return functional.silu(y).to(x.dtype), final_state.clone(memory_format=torch.contiguous_format)


@_causal_conv1d.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, initial_state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), initial_state.new_empty(initial_state.shape)
