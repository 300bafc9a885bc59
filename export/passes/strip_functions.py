"""Strip functions: TensorRT 10.3 always expands a model-local function, even with a plugin of its name registered."""

from __future__ import annotations

import onnx

from storm_edge.export.passes.step import Step


def strip_functions(model: onnx.ModelProto) -> None:
    """Remove the bodies of our operators, in place; the nodes stay, and only a native form can run them."""
    del model.functions[:]


def strip_functions_step() -> Step:
    """The pass for a build."""
    return Step("strip functions", 1, lambda model, _: strip_functions(model))
