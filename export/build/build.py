"""`storm build`: the builder of a target."""

from __future__ import annotations

from collections.abc import Callable

from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.unread import refuse_unread
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.machine.precisions import check_llm_precision, check_precision
from storm_edge.runtime.machine.targets import Target


def build(
    bundle: Bundle, where: Target, options: BuildOptions, progress: Callable[[str], None] = lambda _: None
) -> EngineRecord:
    """Build an engine with the builder its target's engine kind asks for; see `build_cpu` and `build_tensorrt`.

    Raises UsageError for options that the engine would not read.
    """
    if where.engine.startswith("tensorrt") and not options.simulate:
        from storm_edge.export.build.tensorrt.build import build_tensorrt

        return build_tensorrt(bundle, where, options, progress)
    precision = check_precision(where, options.precision)
    llm_precision = check_llm_precision(where, options.llm_precision)
    refuse_unread(bundle, precision, llm_precision, options)
    if options.simulate:
        from storm_edge.export.build.onnxruntime.simulated import build_simulated

        return build_simulated(bundle, where, options, progress)
    from storm_edge.export.build.onnxruntime.cpu import build_cpu

    return build_cpu(
        bundle,
        precision,
        llm_precision,
        calibration=options.calibration,
        int4_block=options.int4_block,
        allow_mismatch=options.allow_mismatch,
        threads=options.threads,
        progress=progress,
    )
