"""`storm calibrate`: clips in, calibration/<name>/ in the bundle out.

What was counted is kept beside the bundle's other calibrations until it is published, so that a run that was stopped
goes on where it was, if it is given the same clips again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from storm_edge.calibration.methods import Method
from storm_edge.calibration.observe import Observer, from_arrays, to_arrays
from storm_edge.calibration.thresholds import METHODS, find_range, quantization_noise
from storm_edge.export.calibrated import (
    ABOUT,
    CALIBRATED,
    FOLDER,
    LAYERS,
    RANGES,
    REPORT,
    LayerChoice,
    Layers,
    Range,
    calibration_folder,
    graph_identity,
)
from storm_edge.runtime.bundle import Bundle, Stage, to_json
from storm_edge.runtime.errors import BuildError, UsageError
from storm_edge.runtime.publish import lock, staging

Frames = NDArray[np.uint8]
Clips = Callable[[], Iterable[Frames]]  # the same clips whenever it is called
MIN_SAMPLES = 8
MIN_FRAMES = 32  # that differ and show something: fewer say nothing of what a layer will see
_SAVE_EVERY = 16  # clips


@dataclass
class _Seen:
    """The clips so far: their chained hash, and how many frames differ and are not of one colour."""

    clips: int = 0
    digest: str = ""
    frames: set[bytes] = field(default_factory=set)

    def add(self, clip: Frames) -> None:
        made_of = self.digest.encode() + str(clip.shape).encode() + clip.tobytes()
        self.clips, self.digest = self.clips + 1, hashlib.sha256(made_of).hexdigest()
        for frame in clip:
            if (frame != frame[0, 0]).any():
                self.frames.add(hashlib.blake2b(frame.tobytes(), digest_size=8).digest())


def calibrate(
    bundle: Bundle,
    clips: Clips,
    name: str,
    *,
    samples: int,
    method: Method = "minmax",
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
    detail: Callable[[str], None] = lambda _: None,
) -> Path:
    """Observe `samples` clips uint8 [T, H, W, 3] and publish calibration/<name>/; returns that folder.

    `progress` is told each step, `detail` how far it is.

    Raises UsageError for too few samples, BuildError for clips that show too little, for NaN, and for a layer whose
    input never changes. Nothing is published then.
    """
    if samples < MIN_SAMPLES:
        raise UsageError(f"{samples} samples are too few to know a range: take at least {MIN_SAMPLES}, better 256.")
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}: choose {', '.join(METHODS)}.")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UsageError(f"{name!r} cannot name a calibration: give letters, digits, - and _ with --name.")
    folder = calibration_folder(bundle, name)
    progress("load")
    with lock(bundle.root / FOLDER), Observer(bundle, threads) as observer:
        kept = bundle.root / FOLDER / f".{name}.observed.safetensors"
        progress("observe")
        seen = _observe(bundle, observer, clips, kept, samples, detail)
        progress("find ranges")
        ranges, figures = _ranges(observer, method)
        about: dict[str, str] = {stage: graph_identity(bundle, stage) for stage in CALIBRATED}
        about |= {"data": seen.digest, "method": method, "samples": str(seen.clips)}
        with staging(folder) as staged:
            arrays = {
                f"{stage}/{tensor}": np.array([x.low, x.high, x.int8, x.largest], np.float32)
                for stage, of_stage in ranges.items()
                for tensor, x in of_stage.items()
            }
            (staged / RANGES).write_bytes(save(arrays, {ABOUT: json.dumps(about, sort_keys=True)}))
            (staged / LAYERS).write_text(to_json(_layers(observer)), encoding="utf-8")
            report: dict[str, Any] = about | {"frames": len(seen.frames), "samples": seen.clips, "tensors": figures}
            report["versions"] = {p: importlib.metadata.version(p) for p in ("storm-edge", "onnxruntime")}
            (staged / REPORT).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        kept.unlink(missing_ok=True)
    return folder


def _observe(
    bundle: Bundle, observer: Observer, clips: Clips, kept: Path, samples: int, detail: Callable[[str], None]
) -> _Seen:
    graphs = "".join(graph_identity(bundle, stage) for stage in CALIBRATED)
    state = _State.read(kept, graphs)
    seen = _Seen()
    coming = islice(clips(), samples)
    if state is not None and state.clips <= samples:
        for clip in islice(coming, state.clips):
            seen.add(clip)
        if seen.digest == state.digest:
            from_arrays(observer.histograms, state.arrays)
        else:  # other clips: what was counted does not belong to them
            seen, coming = _Seen(), islice(clips(), samples)
    for clip in coming:
        detail(f"{seen.clips + 1} of {samples} clips")
        observer.add(clip)
        seen.add(clip)
        if seen.clips % _SAVE_EVERY == 0 and seen.clips < samples:
            partial = kept.with_suffix(".partial")
            save_file(
                to_arrays(observer.histograms),
                partial,
                {"graphs": graphs, "clips": str(seen.clips), "digest": seen.digest},
            )
            partial.replace(kept)
    if seen.clips < samples:
        raise BuildError(
            f"the data gave {seen.clips} clips instead of {samples}: lower --samples, or give more videos."
        )
    if len(seen.frames) < MIN_FRAMES:
        raise BuildError(
            f"only {len(seen.frames)} frames of the data differ and show more than one colour, which says too little"
            f" about real videos: calibrate on at least {MIN_FRAMES}."
        )
    return seen


@dataclass(frozen=True)
class _State:
    """What an earlier run counted before it was stopped."""

    clips: int
    digest: str
    arrays: dict[str, NDArray[Any]]

    @classmethod
    def read(cls, path: Path, graphs: str) -> _State | None:
        """None where there is none, it is damaged, or it is of other graphs."""
        try:
            with safe_open(path, framework="numpy") as f:
                about = f.metadata() or {}
                arrays = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118 # no mapping
            return cls(int(about["clips"]), about["digest"], arrays) if about.get("graphs") == graphs else None
        except (SafetensorError, OSError, KeyError, ValueError):
            return None


def _ranges(observer: Observer, method: Method) -> tuple[dict[Stage, dict[str, Range]], dict[str, dict[str, float]]]:
    """The range of every watched tensor, and figures about it for the report."""
    ranges: dict[Stage, dict[str, Range]] = {}
    figures: dict[str, dict[str, float]] = {}
    for stage, of_stage in observer.histograms.items():
        ranges[stage] = {}
        for tensor, seen in of_stage.items():
            try:
                found = find_range(seen, method)
            except ValueError as e:
                raise BuildError(
                    f"calibration: {tensor} of the {stage} graph never changes ({e}): calibrate on real videos,"
                    " or check the checkpoint with `storm verify`."
                ) from e
            ranges[stage][tensor] = found
            figures[f"{stage}/{tensor}"] = {
                "min": seen.low,
                "max": seen.high,
                "low": found.low,
                "high": found.high,
                "int8": found.int8,
                "uint8_snr_db": round(quantization_noise(seen, found.low, found.high, 255), 2),
                "int8_snr_db": round(quantization_noise(seen, -found.int8, found.int8, 254), 2),
            }
    return ranges, figures


def _layers(observer: Observer) -> Layers:
    return Layers(
        stages={
            stage: {
                x.node: LayerChoice(input=x.input, weight=x.weight, shape=list(x.shape), module=x.module, quantize=True)
                for x in layers
            }
            for stage, layers in observer.layers.items()
        }
    )
