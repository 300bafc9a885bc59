"""The parts of an ONNX file that a device looks at before a runtime does, without the onnx package.

Field numbers and types: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Fields that are not named here are kept
unread. Parsing is the protobuf library's, which bounds depth and lengths.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_SCALARS = {"int64": 3, "int32": 5, "string": 9, "bytes": 12}  # FieldDescriptorProto.Type
_MESSAGE, _OPTIONAL, _REPEATED = 11, 1, 3

# message -> field -> (number, type); "*" before a type repeats it.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {"ir_version": (1, "int64"), "opset_import": (8, "*OperatorSet"), "graph": (7, "Graph")}
    | {"functions": (25, "*Function")}
    | {"training_info": (20, "*Training")},
    "OperatorSet": {"domain": (1, "string"), "version": (2, "int64")},
    "Training": {"initialization": (1, "Graph"), "algorithm": (2, "Graph")},
    "Function": {"name": (1, "string"), "domain": (10, "string"), "node": (7, "*Node")}
    | {"attributes": (11, "*Attribute")},
    "Graph": {"node": (1, "*Node"), "name": (2, "string"), "initializer": (5, "*Tensor")}
    | {"sparse_initializer": (15, "*Sparse"), "input": (11, "*Value"), "output": (12, "*Value")},
    "Node": {"input": (1, "*string"), "output": (2, "*string"), "name": (3, "string"), "op_type": (4, "string")}
    | {"attribute": (5, "*Attribute"), "domain": (7, "string")},
    "Attribute": {"name": (1, "string"), "t": (5, "Tensor"), "g": (6, "Graph"), "tensors": (10, "*Tensor")}
    | {"graphs": (11, "*Graph"), "sparse_tensor": (22, "Sparse"), "sparse_tensors": (23, "*Sparse")},
    "Sparse": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Tensor": {"dims": (1, "*int64"), "data_type": (2, "int32"), "name": (8, "string"), "data_location": (14, "int32")}
    | {"external_data": (13, "*Entry")},
    "Entry": {"key": (1, "string"), "value": (2, "string")},
    "Value": {"name": (1, "string"), "type": (2, "Type")},
    "Type": {"tensor_type": (1, "TensorType")},
    "TensorType": {"elem_type": (1, "int32"), "shape": (2, "Shape")},
    "Shape": {"dim": (1, "*Dimension")},
    "Dimension": {"dim_value": (1, "int64"), "dim_param": (2, "string")},
}


def _model_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="storm_onnx.proto", package="storm_onnx", syntax="proto2")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            label, kind = (_REPEATED, kind[1:]) if kind.startswith("*") else (_OPTIONAL, kind)
            field = described.field.add(name=name, number=number, label=label, type=_SCALARS.get(kind, _MESSAGE))
            if kind not in _SCALARS:
                field.type_name = f".storm_onnx.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("storm_onnx.Model"))


Model = _model_class()
