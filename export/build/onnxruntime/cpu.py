"""Engines for ONNX Runtime on a CPU: the canonical graphs, widened to fp32 of half types, or quantized."""

from __future__ import annotations

from collections.abc import Callable

from storm_edge.export.build.onnxruntime.publish import publish_onnxruntime
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import nbits_steps, quantize_step, smoothquant_steps
from storm_edge.export.build.prepared import Step
from storm_edge.export.build.unread import refuse_unread
from storm_edge.export.passes.int4_blocks import Bits
from storm_edge.export.passes.widen import widen
from storm_edge.runtime.bundle.calibration import find_awq, find_calibration
from storm_edge.runtime.bundle.engine import EngineRecord, engine_name
from storm_edge.runtime.bundle.manifest import STAGES, Bundle, Stage
from storm_edge.runtime.machine.precisions import check_llm_precision, check_precision
from storm_edge.runtime.machine.targets import Target, target

TARGET = "cpu"
_BITS: dict[str, Bits] = {"int8": 8, "int4": 4}
_INT8_BLOCK = 128


def build_for(
    bundle: Bundle, where: Target, options: BuildOptions, progress: Callable[[str], None] = lambda _: None
) -> EngineRecord:
    """`build_cpu` by the options of a build; raises UsageError for those that this engine would not read."""
    precision = check_precision(where, options.precision)
    llm_precision = check_llm_precision(where, options.llm_precision)
    refuse_unread(bundle, precision, llm_precision, options)
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


def build_cpu(
    bundle: Bundle,
    precision: str | None = None,
    llm_precision: str | None = None,
    *,
    calibration: str | None = None,
    int4_block: int = 128,
    allow_mismatch: bool = False,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> EngineRecord:
    """Prepare, verify and publish an engine in the bundle; returns its record.

    Raises TargetError for a precision the CPU has not, BuildError where int8 lacks a calibration, ParityError where the
    engine fails verification and not `allow_mismatch`; nothing is published then.
    """
    precision = check_precision(target(TARGET), precision)
    llm_precision = check_llm_precision(target(TARGET), llm_precision)
    ranges = find_calibration(bundle, calibration) if precision == "int8" else None
    if ranges:
        ranges.require_layers("uint8")
    wide: list[Step] = [] if bundle.manifest.dtype == "float32" else [("widen 1", widen)]
    scaling = find_awq(bundle, calibration) if llm_precision == "int4" else None
    steps: dict[Stage, list[Step]] = {}
    for stage in STAGES:
        # CPUs multiply uint8 activations by int8 weights.
        quantized = [quantize_step(ranges, stage, "uint8")] if ranges and stage != "decoder" else []
        steps[stage] = [*wide, *smoothquant_steps(scaling if stage == "decoder" else ranges, stage), *quantized]
    steps["decoder"] += _small_weights(llm_precision, int4_block)
    return publish_onnxruntime(
        bundle,
        engine_name(TARGET, precision, llm_precision),
        TARGET,
        precision,
        llm_precision,
        steps,
        calibration=ranges or scaling,
        allow_mismatch=allow_mismatch,
        threads=threads,
        progress=progress,
    )


def _small_weights(precision: str, int4_block: int) -> list[Step]:
    """The passes that make the language model's weights int8 or int4; none for fp32."""
    if precision not in _BITS:
        return []
    return [*nbits_steps(_BITS[precision], int4_block if precision == "int4" else _INT8_BLOCK)]
