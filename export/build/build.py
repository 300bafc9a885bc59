"""`storm build`: the options judged, then the builder of the goal's runner."""

from __future__ import annotations

from collections.abc import Callable

from storm_edge.export.build.goal import judge
from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import TargetError
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import Target
from storm_edge.runtime.runners import RUNNERS, function


def build(
    bundle: Bundle, where: Target, options: BuildOptions, progress: Callable[[str], None] = lambda _: None
) -> EngineRecord:
    """Build an engine with the builder of the runner that the target's stages have; see runtime/runners.py.

    Raises TargetError where this version has none, and what `judge` and the builder raise.
    """
    goal = judge(bundle, where, options, probe())
    runner = RUNNERS[goal.runner]
    if not runner.builder:
        raise TargetError(f"this version builds nothing for {runner.words}: choose another --target.")
    record: EngineRecord = function(runner.builder)(bundle, goal, progress)
    return record
