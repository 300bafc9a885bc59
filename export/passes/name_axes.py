"""Name the axes: the exporter calls dynamic output axes "s84" and the like, which changes with the tracer's mood."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import onnx

Axes = Mapping[str, Sequence[int | str]]


def name_axes(model: onnx.ModelProto, axes: Axes, symbol: str) -> None:
    """Give inputs and outputs the axes of `axes` (tensor name -> shape), in place.

    The tracer's own symbol inside intermediate shapes becomes `symbol`. Raises ValueError where a fixed axis of the
    graph differs from the one given, because then the graph is not what the contract says.
    """
    for value in (*model.graph.input, *model.graph.output):
        wanted, dims = axes[value.name], value.type.tensor_type.shape.dim
        if len(dims) != len(wanted):
            raise ValueError(f"{value.name} has {len(dims)} axes, the contract {len(wanted)}")
        for dim, name in zip(dims, wanted, strict=True):
            if isinstance(name, int):
                if dim.dim_value != name:
                    raise ValueError(
                        f"{value.name} has {dim.dim_value or dim.dim_param!r} where the contract has {name}"
                    )
            else:
                dim.dim_param = name
    for value in model.graph.value_info:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\bs\d+\b", symbol, dim.dim_param)
