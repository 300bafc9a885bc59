"""The picture of an analysis: what layers cost alone, and what the loss is by the share that is quantized."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from storm_edge.calibration.sensitivity import LayerCost, Sensitivity
from storm_edge.runtime.errors import UsageError

_NAMED = 2  # of the layers that cost most, by name


def require_matplotlib() -> None:
    """Raise UsageError where there is no matplotlib, before hours were spent."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--analyze draws with matplotlib, which is not installed: pip install matplotlib.")


def draw_sensitivity(found: Sensitivity, title: str, path: Path) -> None:
    """Write a PNG."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(11, 4.4), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    left, right = figure.subplots(1, 2)
    kinds: dict[str, list[LayerCost]] = {}
    for layer in found.layers:
        kinds.setdefault(_kind(layer), []).append(layer)
    for kind, layers in sorted(kinds.items()):
        left.plot([x.place for x in layers], [x.loss for x in layers], ".", markersize=9, label=kind)
    for layer in sorted(found.layers, key=lambda x: -x.loss)[:_NAMED]:
        late = 2 * layer.place > len(found.layers)
        left.annotate(
            layer.module,
            (layer.place, layer.loss),
            (-6 if late else 6, 3),
            textcoords="offset points",
            ha="right" if late else "left",
            fontsize="x-small",
        )
    left.set(title="every layer alone", xlabel="layer, from the frames on", ylabel=found.loss, yscale="log")
    left.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4)
    right.plot([100 * p.share for p in found.curve], [p.loss for p in found.curve], ".-", label="by the ranking")
    right.set(title="together", xlabel="share of the multiplications quantized, %", ylabel=found.loss)
    if found.max_loss is not None:
        right.axhline(found.max_loss, color="tab:red", linewidth=1, linestyle="--", label="--max-loss")
        right.plot(
            [100 * found.chosen_share], [found.chosen_loss], "*", color="tab:green", markersize=13, label="chosen"
        )
    right.set(xlim=(0, 102), ylim=(0, None))
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _kind(layer: LayerCost) -> str:
    """What a layer does, which is the end of its name in the checkpoint."""
    return f"{layer.stage} {layer.module.rsplit('.', 1)[-1]}"
