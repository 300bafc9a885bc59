"""Writing an ONNX model whose large tensors lie in one data file beside it.

Equal models give equal bytes, and one tensor at a time is in memory: `onnx.save_model` needs all of them, and appends
when it finds the data file already there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from storm_edge.export.checkpoint.weights import Array, LazyTensor, checked_read, write_array

# Page size of every machine this runs on but 64 KiB Arm kernels: runtimes map tensors that start on a page.
ALIGNMENT = 4096
# Shapes, scales and indices stay in the graph, where shape inference and TensorRT's parser see them.
INLINE_BYTES = 1024

Reader = Callable[[], Array]


@dataclass(frozen=True)
class StreamedModel:
    """A graph and readers of those of its initializers that hold no values yet."""

    model: onnx.ModelProto
    tensors: Mapping[str, Reader] = field(default_factory=dict)

    def save(self, path: Path, data_name: str) -> None:
        """Write it; see `save_model`."""
        save_model(self.model, path, data_name, self.tensors)


def save_model(model: onnx.ModelProto, path: Path, data_name: str, tensors: Mapping[str, Reader] | None = None) -> None:
    """Write `model` to `path` and its large initializers to `data_name` in the same folder, replacing both.

    `tensors` reads the initializers that have type and dims but no values. Initializers that already refer to a data
    file keep doing so. `model` is left as it is. Raises ValueError for a reader whose array is not of the announced
    type and shape, or that no initializer asks for.
    """
    if Path(data_name).name != data_name:
        raise ValueError(f"{data_name!r} is not a plain file name")
    readers = dict(tensors or {})
    unknown = set(readers) - {tensor.name for tensor in model.graph.initializer}
    if unknown:
        raise ValueError(f"no initializer is called {', '.join(sorted(unknown))}")
    written = without_initializers(model)
    with (path.parent / data_name).open("wb") as data:
        for tensor in model.graph.initializer:
            written.graph.initializer.append(_store(tensor, readers.get(tensor.name), data, data_name))
        empty = data.tell() == 0
    if empty:
        (path.parent / data_name).unlink()
    path.write_bytes(written.SerializeToString(deterministic=True))


def load_model(path: Path) -> StreamedModel:
    """Open a graph file of ours, one of a bundle after `check_graph`; a reader reads values when it is called.

    The readers' initializers have type and dims only, as `save_model` wants them.
    """
    model = onnx.load(path, load_external_data=False)
    readers: dict[str, Reader] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        data, offset = path.parent / where["location"], int(where.get("offset", 0))
        readers[tensor.name] = _mapped(data, dtype, offset, tuple(tensor.dims))
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    return StreamedModel(model, readers)


def _mapped(path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...]) -> Reader:
    return lambda: (
        np.memmap(path, mode="r", dtype=np.uint8, offset=offset, shape=_bytes(dtype, shape)).view(dtype).reshape(shape)
    )


def _bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return dtype.itemsize * int(np.prod(shape, dtype=np.int64))


def announce(name: str, tensor: LazyTensor) -> TensorProto:
    """An initializer with name, type and dims of `tensor` and no values, to be read by `save_model`."""
    data_type = onnx.helper.np_dtype_to_tensor_dtype(tensor.dtype)
    return TensorProto(name=name, data_type=data_type, dims=tensor.shape)


def without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of all but the tensors, without ever copying those."""
    copy = onnx.ModelProto()
    _copy_fields(model, copy, leave_out="graph")
    _copy_fields(model.graph, copy.graph, leave_out="initializer")
    return copy


def _copy_fields(source: Any, target: Any, leave_out: str) -> None:
    for descriptor, value in source.ListFields():
        name = descriptor.name
        if name == leave_out:
            continue
        if hasattr(value, "extend"):
            getattr(target, name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(target, name).CopyFrom(value)
        else:
            setattr(target, name, value)


def _store(tensor: TensorProto, reader: Reader | None, data: IO[bytes], data_name: str) -> TensorProto:
    if reader is None and tensor.data_location == TensorProto.EXTERNAL:
        return tensor
    array: Array | None = None
    if reader is not None:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        array = checked_read(LazyTensor(dtype, tuple(tensor.dims), reader), tensor.name)
        size = array.nbytes
    elif tensor.HasField("raw_data"):
        size = len(tensor.raw_data)
    else:
        array = numpy_helper.to_array(tensor)
        size = array.nbytes
    if size < INLINE_BYTES:
        return tensor if array is None else numpy_helper.from_array(array, tensor.name)
    data.write(b"\0" * (-data.tell() % ALIGNMENT))
    start = data.tell()
    if array is None:
        data.write(tensor.raw_data)
    elif tensor.data_type == TensorProto.INT4:
        data.write(numpy_helper.from_array(array).raw_data)  # two to a byte
    else:
        write_array(data, array)
    stored = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    stored.doc_string = tensor.doc_string
    stored.data_location = TensorProto.EXTERNAL
    for key, value in (("location", data_name), ("offset", start), ("length", data.tell() - start)):
        stored.external_data.add(key=key, value=str(value))
    return stored
