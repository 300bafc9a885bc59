"""What the operators' PyTorch forms share: checks, calls of native kernels, the node of an ONNX export.

Of every operator y has the type and shape of the first input, and the final state those of the last, the initial state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from storm_edge.plugins.op_schema import Schema

Kernel = Callable[[str, Sequence[int], bool, Sequence[int], int], None]


def call_operator(
    schema: Schema, operator: Callable[..., tuple[Tensor, Tensor]], inputs: Sequence[Tensor], reverse: bool
) -> tuple[Tensor, Tensor]:
    """Check the inputs and run the operator; while `torch.onnx.export` traces, make it one node of the graph instead.

    Raises TypeError or ValueError if the inputs' types or shapes are not the schema's, or their devices differ.
    """
    check_tensors(schema, dict(zip((value.name for value in schema.inputs), inputs, strict=True)))
    if not torch.onnx.is_in_onnx_export():
        return operator(*inputs, reverse)
    y, final_state = torch.onnx.ops.symbolic_multi_out(
        schema.qualified_name,
        inputs,
        {**schema.attributes(reverse)},
        dtypes=[inputs[0].dtype, inputs[-1].dtype],
        shapes=[inputs[0].shape, inputs[-1].shape],
        version=schema.version,
    )
    return y, final_state


def check_tensors(schema: Schema, tensors: Mapping[str, Tensor]) -> None:
    """Raise TypeError or ValueError if the inputs' types or shapes are not the schema's, or their devices differ."""
    schema.check_types({name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()})
    schema.check_shapes({name: tensor.shape for name, tensor in tensors.items()})
    first, device = next((name, tensor.device) for name, tensor in tensors.items())
    for name, tensor in tensors.items():
        if tensor.device != device:
            raise ValueError(f"{schema.qualified_name}: {name} must be on {device} like {first}, got {tensor.device}")


def call_cpu_kernel(
    kernel: Kernel, inputs: Sequence[Tensor], sizes: Sequence[int], reverse: bool
) -> tuple[Tensor, Tensor]:
    """Run one of CpuKernels' functions on host tensors."""
    given = [tensor.contiguous() for tensor in inputs]
    made = [like.new_empty(like.shape) for like in (given[0], given[-1])]
    addresses = [tensor.data_ptr() for tensor in (*given, *made)]
    kernel(str(given[0].dtype).removeprefix("torch."), sizes, reverse, addresses, torch.get_num_threads())
    return made[0], made[1]


def call_cuda_kernel(
    kernel: Kernel, inputs: Sequence[Tensor], sizes: Sequence[int], reverse: bool, workspace_bytes: int | None = None
) -> tuple[Tensor, Tensor]:
    """Enqueue one of CudaKernels' functions on the tensors' device and its current stream.

    Copies and workspace go back to PyTorch's allocator at once, which hands them out again in the order of the stream.
    """
    device = inputs[0].device
    given = [tensor.contiguous() for tensor in inputs]
    made = [like.new_empty(like.shape) for like in (given[0], given[-1])]
    if workspace_bytes is not None:
        made.append(torch.empty(workspace_bytes, dtype=torch.uint8, device=device))
    addresses = [tensor.data_ptr() for tensor in (*given, *made)]
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device).cuda_stream
        kernel(str(given[0].dtype).removeprefix("torch."), sizes, reverse, addresses, stream)
    return made[0], made[1]
