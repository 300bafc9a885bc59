"""The operators' plugin that an engine is compiled with, or the reason why it is compiled without one."""

from __future__ import annotations

from pathlib import Path

from storm_edge.export.build.goal import Goal
from storm_edge.plugins.libraries import TENSORRT, build_command, find_library
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import TargetError


def plugin_for(bundle: Bundle, goal: Goal) -> Path | None:
    """The plugin library to compile with; None where the scan is to be expanded into single steps.

    Raises TargetError where there is no plugin and nobody said that it can do without: the expanded scan is a loop over
    all tokens of a clip. TensorRT for RTX compiling for GPUs that are not here is not refused, since that proves graphs
    where there is no nvcc; see `warnings`.
    """
    options = goal.options
    plugin = None if options.without_plugin else find_library(TENSORRT)
    if plugin or options.without_plugin or options.prepare_only or "temporal" not in options.stages or not goal.sms:
        return plugin
    if goal.timed or goal.here:
        steps = options.max_frames * bundle.config.tokens_per_frame
        raise TargetError(
            f"the operators' TensorRT plugin is not built, and without it the scan is a loop of {steps:,} steps: build"
            f" it with `{build_command()}`, or give --without-plugin."
        )
    return None


def warnings(record: EngineRecord) -> list[str]:
    """What is amiss with the layers of a compiled engine, a line each."""
    lines = []
    if record.sms and record.plugin_sha256 is None and "temporal" in record.layers:
        lines.append(
            "the temporal encoder was compiled without the operators' plugin: its scan is a loop over all tokens of a"
            f" clip; `{build_command()}` and build again."
        )
    for stage, layers in record.layers.items():
        if layers.plugins_found is not None and layers.plugins_found < layers.plugins:
            lines.append(f"{stage}: the engine has {layers.plugins_found} of the network's {layers.plugins} plugins.")
        if layers.attentions_fused is not None and layers.attentions_fused < layers.attentions:
            other = "without --wide-softmax" if record.wide_softmax else "with --wide-softmax"
            lines.append(
                f"{stage}: {layers.attentions_fused} of {layers.attentions} attentions are fused: try it {other}."
            )
    return lines


def findings(record: EngineRecord) -> list[str]:
    """What the layers of a compiled engine were found to be, a line each."""
    lines = []
    for stage, layers in record.layers.items():
        for kind, number, found in (
            ("plugins", layers.plugins, layers.plugins_found),
            ("fused attentions", layers.attentions, layers.attentions_fused),
        ):
            if number:
                told = "nothing told" if found is None else f"{found} of {number} in the engine"
                lines.append(f"{stage}: {kind}: {told}")
    return lines
