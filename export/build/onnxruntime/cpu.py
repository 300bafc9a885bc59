"""Engines that ONNX Runtime runs on a CPU: for it, or standing in for those of a target that is not here."""

from __future__ import annotations

from collections.abc import Callable

from storm_edge.export.build.goal import Goal
from storm_edge.export.build.onnxruntime.publish import publish_onnxruntime
from storm_edge.export.build.prepare import Step
from storm_edge.export.build.steps import nbits_steps, quantize_step, simulated_steps, smoothquant_steps
from storm_edge.export.passes.widen import widen
from storm_edge.runtime.bundle.calibration import CALIBRATED
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle, Stage

_INT8_BLOCK = 128


def build_cpu(bundle: Bundle, goal: Goal, progress: Callable[[str], None] = lambda _: None) -> EngineRecord:
    """Prepare, verify and publish an engine in the bundle; returns its record. A simulated one runs only where named.

    Raises BuildError; ParityError where the engine fails verification and not `allow_mismatch`: nothing is published.
    """
    steps = simulated_steps(bundle, goal) if goal.options.simulate else _steps(bundle, goal)
    return publish_onnxruntime(bundle, goal, steps, progress)


def _steps(bundle: Bundle, goal: Goal) -> dict[Stage, list[Step]]:
    """The passes over the canonical graphs: to fp32 from half types, and to what is quantized."""
    wide: list[Step] = [] if bundle.manifest.dtype == "float32" else [("widen 1", widen)]
    calibration = goal.calibration
    steps: dict[Stage, list[Step]] = {}
    for stage in CALIBRATED:
        steps[stage] = list(wide)
        if goal.precision == "int8" and calibration is not None:
            # CPUs multiply uint8 activations by int8 weights.
            steps[stage] += [*smoothquant_steps(calibration, stage), quantize_step(calibration, stage, "uint8")]
    steps["decoder"] = list(wide)
    if goal.llm_precision == "int8":
        steps["decoder"] += nbits_steps(8, _INT8_BLOCK)
    if goal.llm_precision == "int4":
        steps["decoder"] += [*smoothquant_steps(calibration, "decoder"), *nbits_steps(4, goal.options.int4_block)]
    return steps
