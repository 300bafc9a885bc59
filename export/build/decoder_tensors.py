"""The decoder's tensors out of a bundle, by their Hugging Face names, one at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from storm_edge.export.checkpoint.weights import Array
from storm_edge.export.graph_file import Reader, load_model
from storm_edge.export.passes.step import Step
from storm_edge.export.passes.tensors import values
from storm_edge.runtime.bundle.manifest import Bundle

_ROWS = 1024


class DecoderTensors:
    """The initializers of a bundle's decoder after `steps`, matrices as [inputs, outputs]."""

    def __init__(self, bundle: Bundle, steps: list[Step]) -> None:
        loaded = load_model(bundle.graph("decoder"))
        readers: dict[str, Reader] = dict(loaded.tensors)
        for step in steps:
            step.apply(loaded.model, readers)
        self._readers = readers
        self._tensors: dict[str, onnx.TensorProto] = {t.name: t for t in loaded.model.graph.initializer}

    def read(self, name: str) -> Array:
        """A tensor's values, read now and not kept."""
        return values(self._tensors[name], self._readers)

    def largest(self, names: tuple[str, ...]) -> float:
        """The largest magnitude in several tensors, without a copy of any."""
        return max(float(np.abs(part.astype(np.float32)).max()) for name in names for part in self._in_rows(name))

    def _in_rows(self, name: str) -> Iterator[Array]:
        whole = self.read(name)
        return (whole[start : start + _ROWS] for start in range(0, len(whole), _ROWS))
