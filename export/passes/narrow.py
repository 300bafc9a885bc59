"""Narrow fp32 to fp16 or bf16: what TensorRT's strongly typed networks take as the precision of a model.

What must not lose bits keeps fp32: everything the scan reads as f32, the pixels up to the patch convolution, rotary
angles, softmax and the sums of the norms (their operators' own attribute; from the squares on where a norm is made of
single operators), logits, and index arithmetic.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from storm_edge.export.graph_file import Reader
from storm_edge.export.passes.step import Step
from storm_edge.export.passes.tensors import FLOATS, retype
from storm_edge.plugins.causal_conv1d import op as causal_conv1d
from storm_edge.plugins.selective_scan import op as selective_scan
from storm_edge.runtime.config.schema import DType
from storm_edge.runtime.errors import BuildError

# Positions that are f32 whatever T is.
_F32_INPUTS = {
    op.NAME: {i for i, value in enumerate(op.SCHEMA.inputs) if value.type == "float32"}
    for op in (selective_scan, causal_conv1d)
}
_F32_OUTPUTS = {
    op.NAME: {i for i, value in enumerate(op.SCHEMA.outputs) if value.type == "float32"}
    for op in (selective_scan, causal_conv1d)
}
# Operators through which fp32 made from integers (pixels, positions) or of squares stays fp32.
_CARRY = {"Transpose", "Unsqueeze", "Squeeze", "Reshape", "Add", "Sub", "Mul", "Div", "Cos", "Sin", "Concat", "Slice"}
_CARRY |= {"ReduceMean", "Sqrt", "Reciprocal"}
_BEGIN = {"Pow"}  # squares of a norm that is no operator of its own, beyond fp16 from 256 on
_FP32_OUTPUTS = ("logits",)


def narrow(model: onnx.ModelProto, readers: dict[str, Reader], dtype: DType) -> None:
    """Make an fp32 graph `dtype`, in place; function bodies are untouched, they cast by themselves.

    Raises UsageError where a weight does not fit into fp16.
    """
    _Narrower(model, readers, dtype).run()


def narrow_step(dtype: DType) -> Step:
    """The pass for a build."""
    return Step("narrow", 1, lambda model, readers: narrow(model, readers, dtype), dtype)


class _Narrower:
    """Walks the nodes in order and knows of every floating value whether it is narrow (T) or kept fp32."""

    def __init__(self, model: onnx.ModelProto, readers: dict[str, Reader], dtype: DType) -> None:
        self.graph, self.readers, self.dtype = model.graph, readers, dtype
        self.weights = {t.name: t for t in self.graph.initializer if t.data_type == TensorProto.FLOAT}
        self.narrow_weights: set[str] = set()
        self.fp32_weights: set[str] = set()
        self.narrow_values: set[str] = set()
        self.fp32_values: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []
        self.casts: dict[str, str] = {}
        types = {v.name: v.type.tensor_type.elem_type for v in _inferred(model)}
        self.is_float = {name for name, kind in types.items() if kind == TensorProto.FLOAT}

    def run(self) -> None:
        """Retype everything."""
        for value in self.graph.input:
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                self.narrow_values.add(value.name)
                value.type.tensor_type.elem_type = FLOATS[self.dtype]
        for node in list(self.graph.node):
            self._node(node)
        for value in self.graph.output:
            if value.name in _FP32_OUTPUTS:
                self._output_in_fp32(value.name)
            elif value.name in self.narrow_values:
                value.type.tensor_type.elem_type = FLOATS[self.dtype]
        for value in self.graph.value_info:  # the tracer describes initializers there as well
            if value.name in self.narrow_values or value.name in self.narrow_weights:
                value.type.tensor_type.elem_type = FLOATS[self.dtype]
        self._retype_weights()
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)

    def _node(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Cast":
            self.nodes.append(node)
            self._cast(node)
            return
        f32_inputs: set[int] = _F32_INPUTS.get(node.op_type, set()) if node.domain == "storm" else set()
        carried = node.op_type in _CARRY and any(name in self.fp32_values for name in node.input)
        keep = carried and not any(name in self.narrow_values for name in node.input)
        keep |= node.op_type in _BEGIN
        constant = node.op_type in ("Constant", "ConstantOfShape")
        for i, name in enumerate(node.input):
            node.input[i] = self._as_fp32(name) if keep or i in f32_inputs else self._as_narrow(name)
        self.nodes.append(node)
        f32_outputs: set[int] = _F32_OUTPUTS.get(node.op_type, set()) if node.domain == "storm" else set()
        for i, name in enumerate(node.output):
            if name in self.is_float:
                fp32 = keep or constant or i in f32_outputs
                (self.fp32_values if fp32 else self.narrow_values).add(name)

    def _cast(self, node: onnx.NodeProto) -> None:
        (to,) = (a for a in node.attribute if a.name == "to")
        source, result = node.input[0], node.output[0]
        if to.i != TensorProto.FLOAT:
            return
        # A cast from integers begins what is kept; one between floats was made for a type the graph no longer has.
        if source in self.narrow_values or source in self.fp32_values:
            to.i = FLOATS[self.dtype]
            self.narrow_values.add(result)
        else:
            self.fp32_values.add(result)

    def _as_narrow(self, name: str) -> str:
        if name in self.weights:
            self.narrow_weights.add(name)
            return name
        return self._through_cast(name, FLOATS[self.dtype], "narrow") if name in self.fp32_values else name

    def _as_fp32(self, name: str) -> str:
        if name in self.weights:
            self.fp32_weights.add(name)
            return f"{name}.fp32"
        return self._through_cast(name, TensorProto.FLOAT, "fp32") if name in self.narrow_values else name

    def _through_cast(self, name: str, to: int, suffix: str) -> str:
        made = f"{name}.{suffix}"
        if made not in self.casts:
            self.nodes.append(helper.make_node("Cast", [name], [made], name=made, to=to))
            self.casts[made] = name
        return made

    def _output_in_fp32(self, name: str) -> None:
        if name not in self.narrow_values:
            return
        for node in self.nodes:
            for i, result in enumerate(node.output):
                if result == name:
                    node.output[i] = f"{name}.{self.dtype}"
        self.nodes.append(helper.make_node("Cast", [f"{name}.{self.dtype}"], [name], name=name, to=TensorProto.FLOAT))

    def _retype_weights(self) -> None:
        """Weights used in fp32 get a name of their own, so that one used in both types exists in both."""
        for name in sorted(self.fp32_weights):
            kept = onnx.TensorProto()
            kept.CopyFrom(self.weights[name])
            kept.name = f"{name}.fp32"
            if name in self.readers:
                self.readers[kept.name] = self.readers[name]
            self.graph.initializer.append(kept)
        for name, tensor in self.weights.items():
            if name in self.narrow_weights:
                retype(tensor, self.readers, self.dtype)
            elif name in self.fp32_weights:
                self.graph.initializer.remove(tensor)
                self.readers.pop(name, None)


def _inferred(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Every value with its type, by onnx's own inference."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError as e:
        reason = " ".join(str(e).split())
        raise BuildError(f"the graph contradicts itself ({reason}): export the bundle again.") from e
    return [*inferred.graph.value_info, *inferred.graph.output]
