"""Options that an engine of the precisions asked for would not read."""

from __future__ import annotations

from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.bundle.calibration import QUANTIZED, find_awq
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import UsageError


def refuse_unread(bundle: Bundle, precision: str, llm_precision: str, options: BuildOptions) -> None:
    """Raise UsageError where a calibration or a block of int4 weights is asked for, and nothing is made with it."""
    calibration, int4_block = options.calibration, options.int4_block
    if int4_block != BuildOptions.int4_block and llm_precision != "int4":
        raise UsageError(
            f"--int4-block {int4_block} is for int4 weights, this language model's are {llm_precision}: add"
            " --llm-precision int4, or leave it out."
        )
    if calibration is None or precision in QUANTIZED or llm_precision == "fp8":
        return
    if llm_precision != "int4":
        raise UsageError(
            f"--calibration {calibration}: {precision} and {llm_precision} need none: add --precision int8, or leave it"
            " out."
        )
    if find_awq(bundle, calibration) is None:
        raise UsageError(
            f"{bundle.root} has no calibration {calibration!r} with scales for int4 weights: run `storm calibrate"
            f" {bundle.root} --data DIR --awq`, or leave --calibration out."
        )
