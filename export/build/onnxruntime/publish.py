"""Engines that ONNX Runtime runs on a CPU: prepared graphs, verified and published."""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence

from storm_edge.export.build.goal import Goal
from storm_edge.export.build.leftovers import drop_unused_graphs, removed_on_failure
from storm_edge.export.build.prepare import Step, prepared_graph
from storm_edge.runtime.bundle.engine import ENGINE_JSON, EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle, FileSpec, Stage
from storm_edge.runtime.bundle.publish import lock, publish_folder
from storm_edge.runtime.bundle.records import to_json
from storm_edge.runtime.bundle.trust import sealed
from storm_edge.runtime.errors import ParityError
from storm_edge.runtime.machine.memory import memory_limit
from storm_edge.runtime.proof.verify import memory_needed, require, verify


def publish_onnxruntime(
    bundle: Bundle, goal: Goal, steps: Mapping[Stage, Sequence[Step]], progress: Callable[[str], None] = lambda _: None
) -> EngineRecord:
    """Apply `steps` to every stage's graph, verify what comes of it, and publish the engine.

    Raises ParityError where it fails verification and not `allow_mismatch`; nothing is published then.
    """
    name, options = goal.name, goal.options
    bundle.check_once(progress)
    with lock(bundle.root, "engines", progress), removed_on_failure(bundle):
        graphs: dict[Stage, str] = {}
        files: dict[str, FileSpec] = {}
        for stage, passes in steps.items():
            progress(f"prepare {stage}")
            graphs[stage], made = prepared_graph(bundle, stage, name, passes)
            files |= made
        record = EngineRecord(
            name=name,
            target=goal.where.name,
            precision=goal.precision,
            llm_precision=goal.llm_precision,
            state="built",
            simulated=options.simulate,
            bundle_sha256=bundle.sha256,
            graphs=graphs,
            runners=goal.runners,
            files=files,
            versions={p: importlib.metadata.version(p) for p in ("storm-edge", "onnxruntime")},
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            verified=False,
            verification=[],
            calibration=goal.calibrated_by,
        )
        with memory_limit(memory_needed(bundle)):
            results = verify(bundle, record, threads=options.threads, progress=lambda clip: progress(f"verify {clip}"))
        try:
            require(results, bundle, record)
        except ParityError:
            if not options.allow_mismatch:
                raise
        verified = all(r.passed for r in results)
        record = sealed(record.model_copy(update={"verified": verified, "verification": results}))
        with publish_folder(bundle.root, f"engines/{name}") as folder:
            (folder / ENGINE_JSON).write_text(to_json(record), encoding="utf-8")
        drop_unused_graphs(bundle)
    return record
