"""What the operators' PyTorch forms share: checks, calls of native kernels, the node of an ONNX export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from storm_edge.plugins.op_schema import Schema


def check_tensors(schema: Schema, tensors: Mapping[str, Tensor]) -> None:
    """Raise TypeError or ValueError if the inputs' types or shapes are not the schema's, or their devices differ."""
    schema.check_types({name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()})
    schema.check_shapes({name: tensor.shape for name, tensor in tensors.items()})
    first, device = next((name, tensor.device) for name, tensor in tensors.items())
    for name, tensor in tensors.items():
        if tensor.device != device:
            raise ValueError(f"{schema.qualified_name}: {name} must be on {device} like {first}, got {tensor.device}")


def onnx_node(
    schema: Schema, tensors: Sequence[Tensor], outputs: Sequence[tuple[torch.dtype, torch.Size]], reverse: bool
) -> tuple[Tensor, Tensor]:
    """One node of the operator in the graph being exported; `outputs` are the two outputs' types and shapes."""
    y, final_state = torch.onnx.ops.symbolic_multi_out(
        schema.qualified_name,
        tensors,
        {**schema.attributes(reverse)},
        dtypes=[dtype for dtype, _ in outputs],
        shapes=[shape for _, shape in outputs],
        version=schema.version,
    )
    return y, final_state


def call_cpu_kernel(
    kernel: Callable[[str, Sequence[int], bool, Sequence[int], int], None],
    inputs: Sequence[Tensor],
    sizes: Sequence[int],
    outputs: Sequence[Tensor],
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Run one of CpuKernels' functions on host tensors; two outputs with the types and shapes of `outputs`."""
    given = [tensor.contiguous() for tensor in inputs]
    y, final_state = (torch.empty(like.shape, dtype=like.dtype) for like in outputs)
    addresses = [tensor.data_ptr() for tensor in (*given, y, final_state)]
    kernel(str(given[0].dtype).removeprefix("torch."), sizes, reverse, addresses, torch.get_num_threads())
    return y, final_state


def call_cuda_kernel(
    kernel: Callable[[str, Sequence[int], bool, Sequence[int], int], None],
    inputs: Sequence[Tensor],
    sizes: Sequence[int],
    outputs: Sequence[Tensor],
    reverse: bool,
    workspace_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Enqueue one of CudaKernels' functions on the tensors' device and its current stream; outputs as for the CPU.

    Copies and workspace go back to PyTorch's allocator at once, which hands them out again in the order of the stream.
    """
    device = inputs[0].device
    given = [tensor.contiguous() for tensor in inputs]
    made = [torch.empty(like.shape, dtype=like.dtype, device=device) for like in outputs]
    if workspace_bytes is not None:
        made.append(torch.empty(workspace_bytes, dtype=torch.uint8, device=device))
    addresses = [tensor.data_ptr() for tensor in (*given, *made)]
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device).cuda_stream
        kernel(str(given[0].dtype).removeprefix("torch."), sizes, reverse, addresses, stream)
    return made[0], made[1]
