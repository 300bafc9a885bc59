"""Loss and accuracy over the steps of a run, as a PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw_curves(history: list[dict[str, Any]], path: Path) -> None:
    """Draw a run's history: `loss` of every entry, `accuracy` (by question type) of those that have it."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    minutes = [h["seconds"] / 60 for h in history]
    left.plot(minutes, [h["loss"] for h in history], label="answers")
    left.plot(minutes, [h["auxiliary"] for h in history], label="labels of visual tokens")
    left.set(xlabel="minutes", ylabel="training loss", yscale="log")
    left.legend()
    tested = [h for h in history if "accuracy" in h]
    for kind in sorted({k for h in tested for k in h["accuracy"]}):
        points = [(h["seconds"] / 60, 100 * h["accuracy"][kind]) for h in tested if kind in h["accuracy"]]
        right.plot(*zip(*points, strict=True), marker=".", label=kind)
    right.set(xlabel="minutes", ylabel="held-out accuracy, %", ylim=(0, 101))
    if tested:
        right.legend(fontsize="small", ncols=2)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
