"""A contact sheet: the frames that a model saw, what it was asked, and what it said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

_COLUMNS = 8


def draw_sheet(
    path: Path,
    frames: npt.NDArray[np.uint8],
    timestamps: npt.NDArray[np.float64],
    question: str,
    answer: str,
    truth: str,
) -> None:
    """Write a PNG of `frames` [T, H, W, 3], each with its second of `timestamps` [T], above question and answers."""
    import matplotlib.figure

    rows = -(-len(frames) // _COLUMNS)
    figure = matplotlib.figure.Figure(figsize=(_COLUMNS * 1.25, rows * 1.4 + 1.1))
    axes = figure.subplots(rows, _COLUMNS, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.25})
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.95 / (rows * 1.4 + 1.1))
    for place in axes.flat:
        place.set_axis_off()
    for place, frame, second in zip(axes.flat, frames, timestamps, strict=False):
        place.imshow(frame, interpolation="nearest")
        place.set_title(f"{second:.2f} s", fontsize=7, pad=2)
    same = answer.strip().casefold() == truth.strip().casefold()
    top = figure.get_figheight()
    figure.text(0.01, 1 - 0.28 / top, question, fontsize=13, weight="bold")
    colour = "darkgreen" if same else "darkred"
    figure.text(0.01, 1 - 0.58 / top, f"answer: {answer}      truth: {truth}", fontsize=12, color=colour)
    figure.savefig(path, dpi=120)
