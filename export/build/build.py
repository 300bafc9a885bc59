"""`storm build`: the builder of a target."""

from __future__ import annotations

from collections.abc import Callable

from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.bundle import Bundle
from storm_edge.runtime.engine import EngineRecord
from storm_edge.runtime.targets import Target


def build(
    bundle: Bundle, where: Target, options: BuildOptions, progress: Callable[[str], None] = lambda _: None
) -> EngineRecord:
    """Build an engine with the builder its target's engine kind asks for; see `build_cpu` and `build_tensorrt`."""
    if options.simulate:
        from storm_edge.export.build.simulated import build_simulated

        return build_simulated(bundle, where, options, progress)
    if where.engine.startswith("tensorrt"):
        from storm_edge.export.build.tensorrt import build_tensorrt

        return build_tensorrt(bundle, where, options, progress)
    from storm_edge.export.build.cpu import build_cpu

    return build_cpu(
        bundle,
        options.precision,
        options.llm_precision,
        calibration=options.calibration,
        int4_block=options.int4_block,
        allow_mismatch=options.allow_mismatch,
        threads=options.threads,
        progress=progress,
    )
