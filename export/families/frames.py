"""How the processor beside a model prepares frames: resized, scaled and normalised, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storm_edge.export.checkpoint.regular import read_json
from storm_edge.export.families.sections import require
from storm_edge.runtime.errors import CheckpointError

_BICUBIC = 3
_PROCESSORS = ("video_preprocessor_config.json", "processor_config.json", "preprocessor_config.json")


def normalisation(root: Path, side: int, otherwise: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation of the video processor beside the model; raises CheckpointError for another one.

    `otherwise` says both where no file does. Frames are resized to the tower's size and scaled to 0..1 before, which it
    must say too, or nothing.
    """
    found, path = _processor(root)
    plain = {
        "do_resize": (True,),
        "do_rescale": (True,),
        "do_normalize": (True,),
        "do_center_crop": (None, False),
        "do_pad": (None, True, False),  # of images alone
        "resample": (_BICUBIC,),
    }
    require(found, path, plain)
    size = found.get("size")
    if isinstance(size, Mapping) and any(size.get(of) not in (side, None) for of in ("height", "width")):
        raise CheckpointError(f"{path} resizes frames to {dict(size)}, but the vision tower takes {side} x {side}.")
    factor = found.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or abs(255 * factor - 1) > 1e-3:
        raise CheckpointError(f"{path} has rescale_factor {found['rescale_factor']!r}, only 1/255 runs here.")
    return {key: found.get(key) or default for key, default in otherwise.items()}


def _processor(root: Path) -> tuple[Mapping[str, Any], Path]:
    """What the first of the files that a video processor is read from says."""
    for name in _PROCESSORS:
        path = root / name
        if path.exists():
            found = read_json(path, "restore it from the checkpoint's source")
            if name != "processor_config.json":
                return found, path
            if isinstance(inner := found.get("video_processor"), Mapping):
                return inner, path
    return {}, root / _PROCESSORS[0]
