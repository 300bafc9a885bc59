"""`storm build`: the builder of a target's runner."""

from __future__ import annotations

from collections.abc import Callable

from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import TargetError
from storm_edge.runtime.machine.precisions import check_precision
from storm_edge.runtime.machine.targets import Target
from storm_edge.runtime.runners import RUNNERS, function

SIMULATOR = "storm_edge.export.build.onnxruntime.simulated:build_simulated"


def build(
    bundle: Bundle, where: Target, options: BuildOptions, progress: Callable[[str], None] = lambda _: None
) -> EngineRecord:
    """Build an engine with the builder of the runner that the target's stages have; see runtime/runners.py.

    Raises TargetError where this version has none, and what the builder raises.
    """
    check_precision(where, options.precision)
    builder = SIMULATOR if options.simulate else RUNNERS[where.runner].builder
    if not builder:
        raise TargetError(f"this version builds nothing for {RUNNERS[where.runner].words}: choose another --target.")
    record: EngineRecord = function(builder)(bundle, where, options, progress)
    return record
