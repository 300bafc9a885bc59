"""The picture of time and memory by the length of a clip."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib.figure

from storm_edge.runtime.bench.measuring import STAGES, Run

COLOURS = {"video decode": "#9aa5b1", "vision": "#3b6fb6", "temporal": "#e08a2e", "prefill": "#4f9d5d"}


def draw_scaling(found: dict[int, list[Run]], path: Path) -> None:
    """Write a PNG of runs by frames."""
    frames = sorted(found)
    figure = matplotlib.figure.Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for stage in STAGES:
        seconds = [statistics.median(run.seconds[stage] for run in found[n]) for n in frames]
        left.plot(frames, seconds, ".-", markersize=9, label=stage, color=COLOURS[stage])
    first = [statistics.median(run.first_token for run in found[n]) for n in frames]
    left.plot(frames, first, ".-", markersize=9, label="first token", color="black")
    linear = [first[-1] * n / frames[-1] for n in frames]
    left.plot(frames, linear, "--", linewidth=1, color="grey", label="as the longest, linear")
    left.set(title="time", xlabel="frames", ylabel="seconds", xscale="log", yscale="log")
    left.set_xticks(frames, [str(n) for n in frames])
    left.legend(fontsize="small")
    memory = [max(run.peak_memory_bytes for run in found[n]) / 2**30 for n in frames]
    right.plot(frames, memory, ".-", markersize=9, color="black")
    right.set(title="memory", xlabel="frames", ylabel="peak of the process, GiB", ylim=(0, 1.15 * max(memory)))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})
