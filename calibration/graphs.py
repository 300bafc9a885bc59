"""A bundle's graphs as calibration runs them: in fp32, smoothed where there are scales, in a temporary folder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from storm_edge.export.graph_file import Reader, load_model
from storm_edge.export.passes.smoothquant import smoothquant
from storm_edge.export.passes.widen import widen
from storm_edge.runtime.bundle.manifest import Bundle, Stage

Scales = Mapping[Stage, Mapping[str, NDArray[np.float32]]]  # by the name of a norm's output, [channels]


def fp32_graph(bundle: Bundle, stage: Stage, scales: Scales) -> tuple[onnx.ModelProto, dict[str, Reader]]:
    """A stage's graph and the readers of its weights."""
    loaded = load_model(bundle.graph(stage))
    model, readers = loaded.model, dict(loaded.tensors)
    if bundle.manifest.dtype != "float32":
        widen(model, readers)
    smoothquant(model, readers, scales.get(stage, {}))
    return model, readers


def some_rows(rows: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """At most `number` rows of a matrix, evenly spread."""
    picked: NDArray[np.float32] = rows[np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(int)]
    return picked
