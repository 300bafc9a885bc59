"""Preparing a graph for an engine: passes over a canonical graph, written beside it under a name made of both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from storm_edge.export.build.goal import Goal
from storm_edge.export.build.steps import steps_for
from storm_edge.export.graph_file import load_model, save_model
from storm_edge.export.passes.step import Step
from storm_edge.runtime.bundle.door import is_file
from storm_edge.runtime.bundle.manifest import Bundle, FileSpec, Stage, describe_file
from storm_edge.runtime.bundle.publish import publish_files


def prepare(
    bundle: Bundle, goal: Goal, progress: Callable[[Stage], None] = lambda _: None
) -> tuple[dict[Stage, str], dict[str, FileSpec]]:
    """Prepare the graphs of the stages of an engine; returns their paths in the bundle and the files that were made.

    Raises TargetError, or BuildError, where a graph turns out not to take a pass.
    """
    graphs: dict[Stage, str] = {}
    files: dict[str, FileSpec] = {}
    for stage in goal.graphs:
        progress(stage)
        graphs[stage], made = prepared_graph(bundle, stage, goal.name, steps_for(bundle, goal, stage))
        files |= made
    return graphs, files


def prepared_graph(bundle: Bundle, stage: Stage, engine: str, steps: Sequence[Step]) -> tuple[str, dict[str, FileSpec]]:
    """The path in the bundle of a stage's graph after `steps`, and the files that hold it.

    Without steps that is the canonical graph, and no files. A graph that was prepared in the same way before is taken
    as it is; a new one appears under its name when it is complete. Tensors are read and written one at a time.
    """
    spec = bundle.manifest.graphs[stage]
    if not steps:
        return spec.file, {}
    made_of = [bundle.manifest.files[name].sha256 for name in (spec.file, spec.data) if name]
    key = hashlib.sha256("\n".join([*made_of, *(step.words for step in steps)]).encode()).hexdigest()[:12]
    stem = f"{engine}.{key}.{stage}"
    names = [f"{stem}.onnx", f"{stem}.data"]
    if not is_file(bundle.root, f"graphs/{names[0]}"):
        loaded = load_model(bundle.graph(stage))
        readers = dict(loaded.tensors)
        for step in steps:
            step.apply(loaded.model, readers)
        with publish_files(bundle.root, "graphs") as folder:
            save_model(loaded.model, folder / names[0], names[1], readers)
    made = {f"graphs/{name}" for name in names if is_file(bundle.root, f"graphs/{name}")}
    return f"graphs/{names[0]}", {name: describe_file(bundle.located(name)) for name in sorted(made)}
