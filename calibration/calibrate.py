"""`storm calibrate`: clips in, calibration/<name>/ in the bundle out."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from storm_edge.calibration.analysis import Analysis
from storm_edge.calibration.awq import Awq
from storm_edge.calibration.budget import Choice, choose_layers
from storm_edge.calibration.counting import Clips, count
from storm_edge.calibration.graphs import Scales
from storm_edge.calibration.histogram import Histogram
from storm_edge.calibration.language import Language
from storm_edge.calibration.methods import MIN_SAMPLES, Method
from storm_edge.calibration.observe import Observer, range_of
from storm_edge.calibration.plot import draw_sensitivity, require_matplotlib
from storm_edge.calibration.smoothquant import SmoothQuant
from storm_edge.calibration.switched import Key
from storm_edge.calibration.thresholds import METHODS, quantization_noise
from storm_edge.export.passes.block_weights import INT4_KEPT
from storm_edge.export.passes.quantize import LinearLayer
from storm_edge.runtime.bundle.calibration import (
    ABOUT,
    CALIBRATED,
    FOLDER,
    LAYERS,
    RANGES,
    REPORT,
    SCHEMES,
    SMOOTH,
    LayerChoice,
    Layers,
    Range,
    Scheme,
    graph_identity,
)
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.bundle.publish import lock, publish_folder
from storm_edge.runtime.bundle.records import to_json
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.machine.user_folders import cache_folder
from storm_edge.runtime.proof.advice import BUDGET

SENSITIVITY, PICTURE = "sensitivity.json", "sensitivity.png"


def calibrate(
    bundle: Bundle,
    clips: Clips,
    name: str,
    *,
    samples: int,
    method: Method = "minmax",
    smoothquant: SmoothQuant | None = None,
    analysis: Analysis | None = None,
    awq: Awq | None = None,
    language: Language | None = None,
    budget: float = BUDGET,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
    detail: Callable[[str], None] = lambda _: None,
) -> Path:
    """Observe `samples` clips uint8 [T, H, W, 3] and publish calibration/<name>/; returns that folder.

    `progress` is told each step, `detail` how far it is.

    `language` says on what to observe the language model too, as its fp8 needs. `budget` is the share of verification's
    limits that quantizing the encoders may use up, each scheme by itself; infinity quantizes every layer, unmeasured.

    Raises UsageError for too few samples and a budget that is none, BuildError for clips that show too little, for NaN,
    for a layer whose input never changes, and for an analysis that finds no layer to quantize. Nothing is published
    then.
    """
    if samples < MIN_SAMPLES:
        raise UsageError(f"{samples} samples are too few to know a range: take at least {MIN_SAMPLES}, better 256.")
    if not budget > 0:
        raise UsageError(f"a budget of {budget:g} allows nothing: give a share of verification's limits, up to 1.")
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}: choose {', '.join(METHODS)}.")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UsageError(f"{name!r} cannot name a calibration: give letters, digits, - and _ with --name.")
    if analysis is not None:
        require_matplotlib()
    progress("load")
    bundle.check_once(detail)
    with lock(bundle.root, FOLDER, progress):
        scales: Scales = {}
        smoothing = None
        if smoothquant is not None:
            progress("smooth")
            smoothing = smoothquant.run(bundle, clips, method, threads, detail)
            scales = smoothing.scales
        with Observer(bundle, threads, scales) as observer:
            kept = cache_folder() / "observed" / f"{bundle.sha256[:32]}-{name}.safetensors"
            progress("observe")
            seen = count(observer, clips, samples, kept, _identity(bundle, scales), detail)
            progress("find ranges")
            seen_in: dict[Stage, Mapping[str, Histogram]] = {**observer.histograms}
            ranges = observer.ranges(method)
        sensitivity = None
        if analysis is not None:
            progress("analyze")
            work = observer.multiplications()
            sensitivity = analysis.run(bundle, clips, ranges, scales, work, budget, threads, detail)
        every = {(stage, x.node) for stage, of_stage in observer.layers.items() for x in of_stage}
        candidates = every if sensitivity is None else sensitivity.chosen
        choices: dict[Scheme, Choice] = {}
        if budget < math.inf:
            progress("choose layers")
            choices = choose_layers(
                bundle, ranges, scales, seen_in, observer.multiplications(), candidates, budget, threads, detail
            )
        chosen = {scheme: choices[scheme].chosen if choices else candidates for scheme in SCHEMES}
        scaling = None
        if awq is not None:
            progress("scale the language model")
            scaling = awq.run(bundle, threads, detail)
            scales = {**scales, "decoder": scaling.scales}
        layers = _layers(observer.layers, chosen)
        if language is not None:
            progress("observe the language model")
            of_decoder, seen_in["decoder"] = language.run(bundle, threads, detail)
            ranges["decoder"] = {t: range_of("decoder", t, x, method) for t, x in seen_in["decoder"].items()}
            quantized: set[Key] = {("decoder", x.node) for x in of_decoder if x.weight not in INT4_KEPT}
            layers |= _layers({"decoder": of_decoder}, dict.fromkeys(SCHEMES, quantized))
        about: dict[str, str] = {stage: graph_identity(bundle, stage) for stage in CALIBRATED}
        if scaling is not None or language is not None:
            about["decoder"] = graph_identity(bundle, "decoder")
        about |= {"data": seen.digest, "method": method, "samples": str(seen.clips)}
        about |= {"budget": f"{budget:g}"} if choices else {}
        with publish_folder(bundle.root, f"{FOLDER}/{name}") as staged:
            arrays = {
                f"{stage}/{tensor}": np.array([x.low, x.high, x.int8, x.largest], np.float32)
                for stage, of_stage in ranges.items()
                for tensor, x in of_stage.items()
            }
            for stage, of_norm in scales.items():
                arrays |= {f"{SMOOTH}/{stage}/{tensor}": scale for tensor, scale in of_norm.items()}
            (staged / RANGES).write_bytes(save(arrays, {ABOUT: json.dumps(about, sort_keys=True)}))
            (staged / LAYERS).write_text(to_json(Layers(stages=layers)), encoding="utf-8")
            report: dict[str, Any] = about | {"frames": len(seen.frames), "samples": seen.clips}
            report["tensors"] = _figures(seen_in, ranges)
            if choices:
                report["quantized"] = {scheme: choice.as_json() for scheme, choice in choices.items()}
            report["versions"] = {p: importlib.metadata.version(p) for p in ("storm-edge", "onnxruntime")}
            if smoothing is not None:
                report["smoothing"] = smoothing.as_json()
            if scaling is not None:
                report["scaling"] = scaling.as_json()
            _write_json(staged / REPORT, report)
            if analysis is not None and sensitivity is not None:
                _write_json(staged / SENSITIVITY, sensitivity.as_json() | {"scheme": analysis.scheme})
                draw_sensitivity(sensitivity, f"calibration {name}, {analysis.scheme}", staged / PICTURE)
        kept.unlink(missing_ok=True)
    return bundle.root / FOLDER / name


def _identity(bundle: Bundle, scales: Scales) -> str:
    """What the counts of a stopped run belong to: the graphs, and how they were smoothed."""
    made_of = [graph_identity(bundle, stage) for stage in CALIBRATED]
    made_of += [hashlib.sha256(x.tobytes()).hexdigest() for stage in CALIBRATED for x in scales.get(stage, {}).values()]
    return "".join(made_of)


def _figures(
    seen_in: Mapping[Stage, Mapping[str, Histogram]], ranges: Mapping[Stage, Mapping[str, Range]]
) -> dict[str, dict[str, float]]:
    """What the report says of every watched tensor."""
    figures: dict[str, dict[str, float]] = {}
    for stage, of_stage in seen_in.items():
        for tensor, seen in of_stage.items():
            found = ranges[stage][tensor]
            figures[f"{stage}/{tensor}"] = {
                "min": seen.low,
                "max": seen.high,
                "low": found.low,
                "high": found.high,
                "int8": found.int8,
                "uint8_snr_db": round(quantization_noise(seen, found.low, found.high, 255), 2),
                "int8_snr_db": round(quantization_noise(seen, -found.int8, found.int8, 254), 2),
            }
    return figures


def _layers(
    layers: Mapping[Stage, Sequence[LinearLayer]], chosen: Mapping[Scheme, Collection[Key]]
) -> dict[Stage, dict[str, LayerChoice]]:
    return {
        stage: {
            x.node: LayerChoice(
                input=x.input,
                weight=x.weight,
                shape=list(x.shape),
                module=x.module,
                quantize=_briefly([scheme for scheme in SCHEMES if (stage, x.node) in chosen[scheme]]),
            )
            for x in of_stage
        }
        for stage, of_stage in layers.items()
    }


def _briefly(schemes: list[Scheme]) -> bool | list[Scheme]:
    """What layers.json says of a layer that is quantized in these schemes."""
    return schemes if 0 < len(schemes) < len(SCHEMES) else bool(schemes)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
