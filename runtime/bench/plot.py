"""The picture of a benchmark: a bar for every length of clip, stacked by stage, as the paper draws its latencies."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from storm_edge.runtime.errors import UsageError

# Stage, its words and its colour, from the bottom up.
_STACK = (
    ("video decode", "video decode", "#9aa5b1"),
    ("vision", "vision", "#3b6fb6"),
    ("temporal", "temporal", "#e08a2e"),
    ("prefill", "prefill", "#4f9d5d"),
    ("decode", "answer", "#b04a5a"),
)


def require_matplotlib() -> None:
    """Raise UsageError where there is no matplotlib, before minutes were spent."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot draws with matplotlib, which is not installed: pip install 'storm-edge[bench]'.")


def draw(clips: list[dict[str, Any]], title: str, path: Path, peers: dict[str, list[dict[str, Any]]]) -> None:
    """Write a PNG of reports by clip; `peers` are those of others about the same clips, by name."""
    import matplotlib.figure

    bars = [("", clip) for clip in clips]
    if peers:
        named = [("this engine", clips), *peers.items()]
        bars = [(name, reports[i]) for i in range(len(clips)) for name, reports in named]
    figure = matplotlib.figure.Figure(figsize=(max(5.0, 1.5 + 1.4 * len(bars)), 4.6), layout="constrained")
    axes = figure.subplots()
    bottoms = [0.0] * len(bars)
    for stage, words, colour in _STACK:
        heights = [_seconds(report, stage) for _, report in bars]
        axes.bar(range(len(bars)), heights, 0.62, bottoms, label=words, color=colour)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    for i, top in enumerate(bottoms):
        axes.annotate(f"{top:.3g} s", (i, top), (0, 3), textcoords="offset points", ha="center", fontsize="small")
    every = len(bars) // len(clips)
    for i, clip in enumerate(clips):
        axes.text(
            i * every + (every - 1) / 2,
            -0.17 if peers else -0.1,
            f"{clip['frames']} frames\n{clip['tokens']:,} tokens, {clip['visual_tokens']:,} kept",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="center",
            fontsize="small",
        )
    axes.set_xticks(range(len(bars)), [name for name, _ in bars], fontsize="small")
    axes.set(ylabel="seconds", ylim=(0, 1.12 * max(bottoms)))
    axes.set_title(title, fontsize="medium")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize="small", loc="upper left", reverse=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _seconds(report: dict[str, Any], stage: str) -> float:
    """Of a stage; of decode, of the whole answer."""
    if stage != "decode":
        return float(report[stage]["seconds"]["median"])
    before = report["first_token_seconds"]["median"]
    return max(0.0, float(report["total_seconds"]["median"] - before))
