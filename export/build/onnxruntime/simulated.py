"""Engines that stand in for those of a target that is not here: its quantized graphs, run by ONNX Runtime on a CPU.

They hold the integers, fp8 numbers and scales that the target's engine would; sums and everything that is not quantized
are fp32, where the target has fp16 or bf16. So they measure what quantizing does to answers, and nothing of speed.
"""

from __future__ import annotations

from collections.abc import Callable

from storm_edge.export.build.onnxruntime.publish import publish_onnxruntime
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import simulated_steps
from storm_edge.export.build.unread import refuse_unread
from storm_edge.runtime.bundle.calibration import calibration_of
from storm_edge.runtime.bundle.engine import SIMULATED, EngineRecord, engine_name
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.machine.precisions import check_llm_precision, check_precision
from storm_edge.runtime.machine.targets import Target
from storm_edge.runtime.runners import RUNNERS


def build_simulated(
    bundle: Bundle, where: Target, options: BuildOptions, progress: Callable[[str], None] = lambda _: None
) -> EngineRecord:
    """Prepare, verify and publish `<the target's engine>-simulated`, which runs only where it is named.

    Raises UsageError for a target that needs no simulation and for options that nothing would read, TargetError for
    what it cannot do, BuildError where a calibration is missing, ParityError where the engine fails verification and
    not `options.allow_mismatch`.
    """
    if not RUNNERS[where.runner].compiles:
        raise UsageError(f"--simulate stands in for TensorRT: build {where.name} without it, here or where it is.")
    precision = check_precision(where, options.precision)
    llm_precision = check_llm_precision(where, options.llm_precision)
    refuse_unread(bundle, precision, llm_precision, options)
    calibration = calibration_of(bundle, precision, llm_precision, options.calibration)
    return publish_onnxruntime(
        bundle,
        engine_name(where.name, precision, llm_precision) + SIMULATED,
        where.name,
        precision,
        llm_precision,
        simulated_steps(bundle, precision, llm_precision, calibration, options),
        calibration=calibration,
        simulated=True,
        allow_mismatch=options.allow_mismatch,
        threads=options.threads,
        progress=progress,
    )
