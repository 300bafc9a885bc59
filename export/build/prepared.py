"""Preparing a graph for an engine: passes over a canonical graph, written beside it under a name made of both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx

from storm_edge.export.graph_file import Reader, load_model, save_model
from storm_edge.runtime.bundle.manifest import Bundle, FileSpec, Stage, describe_file

Pass = Callable[[onnx.ModelProto, dict[str, Reader]], None]
# A pass with the words that identify it: they change whenever it, or its arguments, do.
Step = tuple[str, Pass]


def prepared_graph(bundle: Bundle, stage: Stage, engine: str, steps: Sequence[Step]) -> tuple[str, dict[str, FileSpec]]:
    """The path in the bundle of a stage's graph after `steps`, and the files that hold it.

    Without steps that is the canonical graph, and no files. A graph that was prepared in the same way before is taken
    as it is; a new one appears under its name when it is complete. Tensors are read and written one at a time.
    """
    spec = bundle.manifest.graphs[stage]
    if not steps:
        return spec.file, {}
    made_of = [bundle.manifest.files[name].sha256 for name in (spec.file, spec.data) if name]
    key = hashlib.sha256("\n".join([*made_of, *(words for words, _ in steps)]).encode()).hexdigest()[:12]
    stem = f"graphs/{engine}.{key}.{stage}"
    graph, data = bundle.path(f"{stem}.onnx"), bundle.path(f"{stem}.data")
    if not graph.exists():
        loaded = load_model(bundle.path(spec.file))
        readers = dict(loaded.tensors)
        for _, apply in steps:
            apply(loaded.model, readers)
        partial = graph.with_suffix(".partial")
        save_model(loaded.model, partial, data.name, readers)
        partial.replace(graph)
    return f"{stem}.onnx", {f"graphs/{p.name}": describe_file(p) for p in (graph, data) if Path(p).exists()}
