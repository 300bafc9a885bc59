"""What the operators' PyTorch forms share: checks, calls of native kernels, the node of an ONNX export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from storm_edge.plugins.op_schema import Schema


def check_tensors(schema: Schema, tensors: Mapping[str, Tensor]) -> None:
    """Raise TypeError or ValueError if the inputs' types or shapes are not the schema's."""
    schema.check_types({name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()})
    schema.check_shapes({name: tensor.shape for name, tensor in tensors.items()})


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
