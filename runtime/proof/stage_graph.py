"""The ONNX graph of a stage as what computes it, node by node, and the same graph that gives out other tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from storm_edge.runtime.bundle.onnx_messages import Model

# What layers are made of; every other node only moves, adds or scales what these compute.
_LAYERS = frozenset(
    "Attention CausalConv1d Conv GroupQueryAttention LayerNormalization MatMul MatMulNBits RMSNormalization"  # noqa: SIM905
    " SelectiveScan SimplifiedLayerNormalization".split()
)


@dataclass(frozen=True)
class Tensor:
    """A value that a node of the graph computes."""

    name: str
    node: str
    op: str
    inputs: tuple[str, ...]

    @property
    def is_layers(self) -> bool:
        """Whether a layer computes it, or what does has no weights."""
        return self.op in _LAYERS


class StageGraph:
    """A graph file that `check_graph` has let through; `tensors` are in the order in which they are computed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._model = Model.FromString(path.read_bytes())
        self.tensors = {tensor.name: tensor for tensor in self._tensors()}

    def _tensors(self) -> Iterator[Tensor]:
        for node in self._model.graph.node:
            for output in node.output:
                if output:
                    yield Tensor(output, node.name or output, node.op_type, tuple(node.input))

    def size(self, name: str, axis: int) -> int | None:
        """The size of an input's axis; None where it is dynamic."""
        (value,) = (v for v in self._model.graph.input if v.name == name)
        return value.type.tensor_type.shape.dim[axis].dim_value or None

    def giving(self, names: Collection[str]) -> bytes:
        """The content of a graph file with these tensors as outputs; its weights lie beside the file it came from."""
        model = Model()
        model.CopyFrom(self._model)
        typed = {value.name: value for value in self._model.graph.output}
        del model.graph.output[:]
        for name in names:
            if name in typed:
                model.graph.output.add().CopyFrom(typed[name])
            else:
                model.graph.output.add(name=name)  # the runtime finds the type
        content: bytes = model.SerializeToString(deterministic=True)
        return content
