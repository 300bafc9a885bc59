"""PyTorch module -> ONNX model, through torch.onnx's dynamo exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from onnxscript import opset20 as op
from torch import Tensor, nn


def _quotient(a: Any, b: Any) -> Any:
    """Whole numbers divided: ONNX rounds towards zero, PyTorch down, and no graph here has negative ones. The
    exporter's own way takes Mod, which CUDA kernels lack.
    """
    return op.Div(a, b)


_TRANSLATIONS: dict[Any, Any] = {torch.ops.aten.floor_divide.default: _quotient}


def trace(
    module: nn.Module,
    args: Sequence[Tensor],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_shapes: Sequence[Mapping[int, Any]],
    opset: int,
) -> onnx.ModelProto:
    """Trace `module` called with `args`; every argument is a tensor of its own (aliased ones give a wrong graph)."""
    module = module.eval()
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            tuple(args),
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(dict(shape) for shape in dynamic_shapes),
            custom_translation_table=_TRANSLATIONS,
        )
    assert program is not None
    return program.model_proto
