"""What the operators' PyTorch forms share: their checks, and the node they become in an ONNX export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
