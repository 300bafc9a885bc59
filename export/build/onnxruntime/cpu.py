"""Engines that ONNX Runtime runs on a CPU: for it, or standing in for those of a target that is not here."""

from __future__ import annotations

from collections.abc import Callable

from storm_edge.export.build.goal import Goal
from storm_edge.export.build.pieces import temporal_pieces
from storm_edge.export.build.prepare import prepare
from storm_edge.export.build.publish import building, new_record, publish, verified
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.machine.packages import require_package
from storm_edge.runtime.runners import RUNNERS

_INT8_NOTE = (
    "an int8 language model takes longer for a prompt than fp32 on CPUs without VNNI, and int4 is faster than both:"
    " take int8 only where int4 is not exact enough (docs/cpu.md)"
)


def build_cpu(bundle: Bundle, goal: Goal, progress: Callable[[str], None] = lambda _: None) -> EngineRecord:
    """Prepare, verify and publish an engine in the bundle; returns its record. A simulated one runs only where named.

    Raises BuildError; ParityError where the engine fails verification and not `allow_mismatch`: nothing is published.
    """
    with building(bundle, progress):
        graphs, files = prepare(bundle, goal, lambda stage: progress(f"prepare {stage}"))
        pieces, cut = temporal_pieces(bundle, goal.name, graphs["temporal"])
        versions = {RUNNERS[goal.runner].package: require_package(goal.runner)}
        notes = [_INT8_NOTE] if goal.llm_precision == "int8" and not goal.options.simulate else []
        record = new_record(bundle, goal, "built", graphs, files | cut, versions, pieces=pieces, notes=notes)
        return publish(bundle, verified(bundle, record, goal.options, progress))
