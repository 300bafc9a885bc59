"""What to do about an engine that fails verification: a command that helps, or another precision, never a circle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.runners import RUNNERS

if TYPE_CHECKING:
    from storm_edge.runtime.bundle.calibration import Calibration
    from storm_edge.runtime.bundle.engine import EngineRecord
    from storm_edge.runtime.bundle.manifest import Bundle

BUDGET = 0.8  # of verification's limits, that a calibration lets its layers use up; the rest is for rounding elsewhere
_LEAST = 0.1  # of a budget that is advised: below it so few layers are left that none is worth quantizing


def advise(bundle: Bundle, record: EngineRecord, stage: str) -> str:
    """What to do about an engine whose `stage` fails first."""
    from storm_edge.runtime.bundle.calibration import QUANTIZED  # not above: `storm calibrate --help` names BUDGET

    calibration = _calibration_of(bundle, record)
    if stage != "decoder" and record.precision in QUANTIZED:
        budget = _next_budget(calibration)
        if budget is None:
            return f"no budget of a calibration helps: build with --precision {_float(record)}"
        return (
            f"leave more layers in floating point with `storm calibrate {bundle.root} --data DIR{_options(calibration)}"
            f" --budget {budget:g}`, and build it again"
        )
    if record.llm_precision == "fp8":
        return "take --llm-precision bf16"
    if record.llm_precision == "int4":
        if calibration is None or not calibration.scales["decoder"]:
            return f"scale its weights with `storm calibrate {bundle.root} --data DIR --awq`, and build it again"
        return f"take --llm-precision {'int8' if record.target == 'cpu' else 'bf16'}"
    if stage.endswith("decoder") and RUNNERS[record.runners["decoder"]].language:
        return "build it again; if it still fails, leave --llm out, or publish it with --allow-mismatch"
    command = to_find_the_layer(bundle, record, stage)
    return f"build it again; if it still fails, publish it with --allow-mismatch, and `{command}` names the layer"


def to_find_the_layer(bundle: Bundle, record: EngineRecord, stage: str, clip: str = "") -> str:
    """The command that names the first layer that differs, for a stage of verify's table."""
    graph = {"chain": "vision", "chain decoder": "decoder"}.get(stage, stage)
    on = f" --clip {clip}" if clip else ""
    return f"storm compare {bundle.root} --engine {record.name} --stage {graph}{on}"


def _calibration_of(bundle: Bundle, record: EngineRecord) -> Calibration | None:
    """The calibration that an engine was built with, as it is now."""
    from storm_edge.runtime.bundle.calibration import find_calibration

    try:
        return find_calibration(bundle, record.calibration.split()[0]) if record.calibration else None
    except BuildError:  # it is gone, or damaged: it is made again
        return None


def _next_budget(calibration: Calibration | None) -> float | None:
    """A smaller budget than the calibration's, so that every advice differs from the last; None below the least."""
    if calibration is None or calibration.budget is None:
        return BUDGET
    smaller = min(BUDGET, calibration.budget / 2)
    return smaller if smaller >= _LEAST else None


def _options(calibration: Calibration | None) -> str:
    """What makes a calibration again that holds what this one does."""
    if calibration is None:
        return ""
    asked = {
        f"--name {calibration.name}": True,
        f"--method {calibration.method}": calibration.method not in ("minmax", "?"),
        "--smooth": any(scales for stage, scales in calibration.scales.items() if stage != "decoder"),
        "--awq": bool(calibration.scales["decoder"]),
        "--llm": "decoder" in calibration.ranges,
    }
    return "".join(f" {option}" for option, wanted in asked.items() if wanted)


def _float(record: EngineRecord) -> str:
    """The precision of a target's encoders without a calibration."""
    return "fp32" if record.target == "cpu" else "fp16"
