"""A pass with its arguments, as builds apply it to a graph and remember that they did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from storm_edge.export.graph_file import Reader


@dataclass(frozen=True)
class Step:
    """What a pass gives a build: `apply` changes a graph and the readers of its tensors in place.

    A pass raises its `version` when it makes another graph of the same one: then nothing prepared before is taken for
    it. `arguments` are all that changes what `apply` does, in words.
    """

    name: str
    version: int
    apply: Callable[[onnx.ModelProto, dict[str, Reader]], object]
    arguments: str = ""

    @property
    def words(self) -> str:
        """What tells it from every other step."""
        return f"{self.name} {self.version} {self.arguments}".rstrip()
