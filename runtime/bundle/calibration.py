"""What calibration left in a bundle, as a build reads it: ranges of activations, and which layers to quantize.

calibration/<name>/ranges.safetensors holds `<stage>/<tensor>` float32 [4] in the order of Range's fields, for a norm
that is smoothed `smooth/<stage>/<tensor>` float32 [channels] (its range is that of the smoothed values), and the
graphs' hashes; layers.json says of every linear layer in which schemes it is quantized, and may be edited. Needs no
onnx.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from storm_edge.runtime.bundle.door import folders_in, is_file
from storm_edge.runtime.bundle.manifest import STAGES, Bundle, Stage
from storm_edge.runtime.bundle.records import read_record, said
from storm_edge.runtime.errors import BuildError, BundleError

FOLDER = "calibration"
RANGES, LAYERS, REPORT = "ranges.safetensors", "layers.json", "report.json"
SMOOTH = "smooth"  # before the names of scales
ABOUT = "calibration"  # the one key of the ranges' metadata: safetensors writes several in any order
CALIBRATED: tuple[Stage, ...] = ("vision", "temporal")  # always; the decoder only where fp8 is wanted for it
QUANTIZED = ("int8", "fp8")  # precisions of both
Scheme = Literal["uint8", "int8", "fp8"]  # of activations: a CPU's int8, TensorRT's int8, fp8
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)


@dataclass(frozen=True)
class Range:
    """What a tensor's values are cut to: [low, high] as uint8, [-int8, int8] as int8, [-largest, largest] as fp8."""

    low: float
    high: float
    int8: float
    largest: float


class LayerChoice(BaseModel):
    """One linear layer: what it multiplies, and whether a build quantizes it: in every scheme, in none, or in some."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: str
    weight: str
    shape: list[int]
    module: str
    quantize: bool | list[Scheme]

    def quantized_in(self, scheme: Scheme) -> bool:
        """Whether a build in `scheme` quantizes it."""
        return self.quantize if isinstance(self.quantize, bool) else scheme in self.quantize


class Layers(BaseModel):
    """What layers.json says, by stage and name of the MatMul node."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: dict[Stage, dict[str, LayerChoice]]


@dataclass(frozen=True)
class Calibration:
    """A calibration of a bundle; `sha256` is of both files, so that a change of either is a change of the build.

    `scales` are by stage and tensor: see export/passes/smoothquant.py. `method`, `samples`: what it was made with.
    `budget`: the share of verification's limits that its layers were chosen for, None where they were not.
    """

    name: str
    method: str
    samples: str
    budget: float | None
    ranges: dict[Stage, dict[str, Range]]
    layers: Layers
    scales: dict[Stage, dict[str, NDArray[np.float32]]]
    sha256: str

    def chosen(self, stage: Stage, scheme: Scheme) -> frozenset[str]:
        """The MatMul nodes of a stage that are quantized in `scheme`."""
        return frozenset(name for name, layer in self.layers.stages[stage].items() if layer.quantized_in(scheme))

    def require_layers(self, scheme: Scheme) -> None:
        """Raise BuildError where `scheme` would quantize nothing in the encoders: the engine's name would be a lie."""
        if not any(self.chosen(stage, scheme) for stage in CALIBRATED):
            instead = "fp32" if scheme == "uint8" else "fp16"
            raise BuildError(
                f"calibration {self.name} leaves every layer of the encoders in floating point for {scheme}, by its"
                f" budget or by hand ({LAYERS}): build with --precision {instead}, which needs none."
            )


def graph_identity(bundle: Bundle, stage: Stage) -> str:
    """The hash of a canonical graph and its weights."""
    spec = bundle.manifest.graphs[stage]
    made_of = [bundle.manifest.files[name].sha256 for name in (spec.file, spec.data) if name]
    return hashlib.sha256("\n".join(made_of).encode()).hexdigest()


def find_calibration(bundle: Bundle, name: str | None) -> Calibration:
    """The calibration called `name`, or the only one; raises BuildError where there is none, or more than one."""
    known = calibration_names(bundle)
    again = f"`storm calibrate {bundle.root} --data DIR`"
    if not known:
        raise BuildError(f"{bundle.root} has no calibration, which int8 and fp8 need: run {again} first.")
    if name is None and len(known) > 1:
        raise BuildError(f"{bundle.root} has several calibrations: choose one with --calibration {' or '.join(known)}.")
    name = name or known[0]
    if name not in known:
        raise BuildError(f"{bundle.root} has no calibration {name!r} (it has: {', '.join(known)}): run {again}.")
    return _read(bundle, name)


def find_awq(bundle: Bundle, name: str | None) -> Calibration | None:
    """The calibration called `name`, or the only one, that scales the language model for int4; None where none does.

    Raises BuildError where several do and none is named.
    """
    return _find_of_decoder(bundle, name, "scales for int4", lambda c: bool(c.scales["decoder"]))


def find_language(bundle: Bundle, name: str | None) -> Calibration:
    """The calibration called `name`, or the only one, that has the language model's ranges.

    Raises BuildError where none does, or several do and none is named.
    """
    if name is not None:
        find_calibration(bundle, name)  # refuses one that is not there by naming those that are
    found = _find_of_decoder(bundle, name, "the language model's ranges", lambda c: "decoder" in c.ranges)
    if found is None:
        which = f"calibration {name} of {bundle.root}" if name else f"{bundle.root}'s calibrations"
        raise BuildError(
            f"{which} did not observe the language model, which --llm-precision fp8 needs: run"
            f" `storm calibrate {bundle.root} --data DIR --llm` first."
        )
    return found


def calibration_of(
    bundle: Bundle, precision: str, llm_precision: str, name: str | None, scheme: Scheme
) -> Calibration | None:
    """The calibration that a build reads, None where it reads none; `scheme` is that of quantized encoders.

    Raises what the functions above raise.
    """
    ranges = find_calibration(bundle, name) if precision in QUANTIZED else None
    if ranges:
        ranges.require_layers(scheme)
    if llm_precision == "fp8":
        return find_language(bundle, ranges.name if ranges else name)
    return ranges or (find_awq(bundle, name) if llm_precision == "int4" else None)


def _find_of_decoder(
    bundle: Bundle, name: str | None, what: str, has: Callable[[Calibration], bool]
) -> Calibration | None:
    found = [c for c in (_read(bundle, known) for known in calibration_names(bundle)) if has(c)]
    if name is None and len(found) > 1:
        names = " or ".join(c.name for c in found)
        raise BuildError(f"{bundle.root} has several calibrations with {what}: choose one, --calibration {names}.")
    return next((c for c in found if name in (None, c.name)), None)


def calibration_names(bundle: Bundle) -> list[str]:
    """The calibrations in a bundle."""
    return [name for name in folders_in(bundle.root, FOLDER) if is_file(bundle.root, f"{FOLDER}/{name}/{RANGES}")]


def _read(bundle: Bundle, name: str) -> Calibration:
    try:
        return _read_files(bundle, name)
    except (BuildError, BundleError) as e:  # tensors can be called anything in a damaged file
        raise BuildError(" ".join(str(e).split())) from e


def _read_files(bundle: Bundle, name: str) -> Calibration:
    ranges_file, layers_file = (bundle.located(f"{FOLDER}/{name}/{file}") for file in (RANGES, LAYERS))
    again = "repeat `storm calibrate`"
    try:
        with safe_open(ranges_file, framework="numpy") as f:
            about = json.loads((f.metadata() or {}).get(ABOUT, "{}"))
            values = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118 # no mapping
        if not isinstance(about, dict):
            raise ValueError("its metadata is no object")
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as e:
        raise BuildError(f"{ranges_file} is damaged ({e}): {again}.") from e
    try:
        layers = Layers.model_validate(read_record(bundle.root, f"{FOLDER}/{name}/{LAYERS}", "the layers", BuildError))
    except ValidationError as e:
        raise BuildError(f"{layers_file} is damaged ({said(e)}): correct it or {again}.") from e
    ranges: dict[Stage, dict[str, Range]] = {}
    with_decoder: tuple[Stage, ...] = (*CALIBRATED, "decoder")
    for stage in with_decoder if "decoder" in layers.stages else CALIBRATED:
        if about.get(stage) != graph_identity(bundle, stage):
            raise BuildError(f"{ranges_file} was observed on another {stage} graph than this bundle's: {again}.")
        ranges[stage] = {
            tensor: _range(x, f"{tensor} in {ranges_file}") for tensor, x in _under(f"{stage}/", values).items()
        }
        chosen = layers.stages.get(stage, {})
        missing = sorted({c.input for c in chosen.values() if c.quantize} - set(ranges[stage]))
        if stage not in layers.stages or missing:
            what = f"names {missing[0]}, of which no range is known" if missing else f"says nothing of {stage}"
            raise BuildError(f"{layers_file} {what}: correct it or {again}.")
    digest = hashlib.sha256(ranges_file.read_bytes() + _canonical(layers)).hexdigest()
    scales: dict[Stage, dict[str, NDArray[np.float32]]] = {}
    for stage in STAGES:
        scales[stage] = _under(f"{SMOOTH}/{stage}/", values)
        if scales[stage] and about.get(stage) != graph_identity(bundle, stage):
            raise BuildError(f"{ranges_file} was observed on another {stage} graph than this bundle's: {again}.")
        for tensor, scale in scales[stage].items():
            if scale.dtype != np.float32 or scale.ndim != 1 or not (np.isfinite(scale) & (scale > 0)).all():
                raise BuildError(f"the scales of {tensor} in {ranges_file} are no positive numbers: {again}.")
    made_with = str(about.get("method", "?")), str(about.get("samples", "?")), _budget(about.get("budget"), ranges_file)
    return Calibration(name, *made_with, ranges, layers, scales, digest)


def _under(prefix: str, values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(prefix): x for key, x in values.items() if key.startswith(prefix)}


def _range(values: NDArray[Any], what: str) -> Range:
    if values.dtype != np.float32 or values.shape != (4,):
        raise BuildError(f"the range of {what} is {values.dtype} {list(values.shape)}: repeat `storm calibrate`.")
    low, high, int8, largest = values.tolist()
    if not all(map(math.isfinite, values)) or not low < high or min(int8, largest) <= 0:
        raise BuildError(f"the range of {what} is {values.tolist()}, which is none: repeat `storm calibrate`.")
    return Range(low, high, int8, largest)


def _budget(value: Any, file: Path) -> float | None:
    try:
        budget = None if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        budget = -1.0
    if budget is not None and not budget > 0:
        raise BuildError(f"the budget in {file} is no positive number: repeat `storm calibrate`.")
    return budget


def _canonical(layers: Layers) -> bytes:
    return layers.model_dump_json().encode()
