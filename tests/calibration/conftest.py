"""Bundles whose activations have outliers, as those of trained models have and random ones have not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storm_edge.export.graph_file import load_model, save_model
from storm_edge.export.passes.smoothquant import smoothquant, smoothquant_groups
from storm_edge.runtime.bundle.manifest import MANIFEST, Bundle, Manifest, Stage, describe_file
from storm_edge.runtime.bundle.records import to_json


@pytest.fixture
def with_outliers(bundle: Path, copy_of: Callable[[Path], Path]) -> Callable[[Stage], Bundle]:
    """Copies the bundle with a few channels of two tensors of a stage 60 times larger, and weights smaller to match.

    The function is the same, so the reference record still holds.
    """

    def make(stage: Stage) -> Bundle:
        root = copy_of(bundle)
        path = root / "graphs" / f"{stage}.onnx"
        loaded = load_model(path)
        model, readers = loaded.model, dict(loaded.tensors)
        scales = {}
        for group in smoothquant_groups(model)[1:3]:
            scales[group.output] = np.ones(group.layers[0].shape[0], np.float32)
            scales[group.output][5::16] = 1 / 60
        smoothquant(model, readers, scales)
        changed = {name: np.array(read()) for name, read in readers.items()}  # the file they lie in is written over
        save_model(model, path, f"{stage}.data", {name: (lambda x=x: x) for name, x in changed.items()})
        manifest = Manifest.model_validate_json((root / MANIFEST).read_text(encoding="utf-8"))
        files = {f"graphs/{stage}.{end}": describe_file(path.with_suffix(f".{end}")) for end in ("onnx", "data")}
        (root / MANIFEST).write_text(to_json(manifest.model_copy(update={"files": manifest.files | files})))
        return Bundle.open(root)

    return make
