"""Engines: what a build made of a bundle for one target, and which of them to use.

`engines/<name>/engine.json` says what the engine is made of and how it was verified. The name is
target-precision, with the language model's precision added where it differs: `cpu-fp32`, `cpu-int8-llm-int4`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_serializer

from storm_edge.runtime.bundle.manifest import Bundle, FileSpec, Stage, file_sha256, read_record
from storm_edge.runtime.errors import EngineError, UsageError

ENGINE_JSON = "engine.json"
ENGINE_SCHEMA = 1
SIMULATED = "-simulated"  # ends the name of an engine that stands in for another


class CheckResult(BaseModel):
    """One row of a verification: a stage of a clip, what was measured, and what is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clip: str
    stage: str
    metric: str
    value: float
    limit: float
    passed: bool

    @field_serializer("value", when_used="json")
    def _in_json(self, value: float) -> float | str:
        """JSON has no NaN and no infinity: they are written, and read, as "nan" and "inf"."""
        return value if math.isfinite(value) else str(value)


class ProfileShapes(BaseModel):
    """An optimization profile of one input: smallest, most frequent and largest shape."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: list[int]
    opt: list[int]
    max: list[int]


class EngineRecord(BaseModel):
    """What engine.json says. `graphs` maps a stage to the file in the bundle that is run for it.

    `state`: "prepared" graphs are not compiled; "compiled" ones are for GPUs that were not there, and nothing has run
    them; "built" ones were verified where they run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = ENGINE_SCHEMA
    name: str
    target: str
    precision: str
    llm_precision: str
    state: Literal["prepared", "compiled", "built"]
    bundle_sha256: str
    graphs: dict[Stage, str]
    files: dict[str, FileSpec]
    versions: dict[str, str]
    created: str
    verified: bool
    verification: list[CheckResult]
    calibration: str = ""  # of int8 and fp8: the name and hash of the ranges and layers
    simulated: bool = False  # ONNX Runtime runs the quantized graphs of another engine as they are written
    # Of TensorRT engines: the package that runs them, what they were compiled of and for, and what that took.
    api: Literal["tensorrt", "tensorrt_rtx"] | None = None
    llm_api: Literal["onnxruntime"] | None = None  # what runs the language model where it is not `api`
    sms: list[int] = []
    max_length: int | None = None  # tokens of the KV cache, where fewer than the model's
    key: str = ""
    prepared_key: str = ""
    prepared_graphs: dict[Stage, str] = {}
    profiles: dict[Stage, dict[str, ProfileShapes]] = {}
    plugin_sha256: str | None = None
    build_seconds: dict[Stage, float] = {}
    peak_memory_bytes: int = 0


def engine_name(target: str, precision: str, llm_precision: str) -> str:
    """The folder name of an engine."""
    return f"{target}-{precision}" + (f"-llm-{llm_precision}" if llm_precision != precision else "")


def read_engine(bundle: Bundle, name: str) -> EngineRecord:
    """Read one engine and check that it belongs to this bundle and its files are unchanged; raises EngineError."""
    path = bundle.path(f"engines/{name}/{ENGINE_JSON}")
    target = name.split("-")[0]
    again = f"repeat `storm build {bundle.root} --target {target}`"
    if not path.is_file():
        known = ", ".join(sorted(p.parent.name for p in _records(bundle))) or "none"
        raise UsageError(f"{bundle.root} has no engine {name!r} (it has: {known}): {again} or choose another.")
    data = read_record(path, "the engine", EngineError)
    version = data.get("schema_version")
    if version != ENGINE_SCHEMA:
        raise EngineError(f"{path} has schema version {version}, this storm-edge reads {ENGINE_SCHEMA}: {again}.")
    try:
        record = EngineRecord.model_validate(data)
    except ValidationError as e:
        raise EngineError(f"{path} is damaged ({e.errors()[0]['msg']}): {again}.") from e
    if record.bundle_sha256 != bundle.sha256:
        raise EngineError(f"{path} was built from another bundle: {again}.")
    for file, spec in record.files.items():
        built = bundle.path(file)
        if not built.is_file() or built.stat().st_size != spec.size:
            raise EngineError(f"{built} is missing or has another size than when it was built: {again}.")
    return record


def check_engine_hashes(bundle: Bundle, record: EngineRecord) -> None:
    """Hash every file a build added; raises EngineError naming the first that changed."""
    for file, spec in record.files.items():
        if file_sha256(bundle.path(file)) != spec.sha256:
            raise EngineError(f"{bundle.path(file)} is damaged: repeat `storm build --target {record.target}`.")


def choose_engine(bundle: Bundle, name: str | None, targets: tuple[str, ...]) -> EngineRecord:
    """The named engine, or else the newest verified one whose target is among `targets`; raises EngineError."""
    if name is not None:
        return read_engine(bundle, name)
    found = [read_engine(bundle, p.parent.name) for p in _records(bundle)]
    usable = [e for e in found if e.verified and e.state == "built" and not e.simulated and e.target in targets]
    if not usable:
        have = f"its engines are {', '.join(e.name for e in found)}" if found else "it has no engines"
        raise EngineError(
            f"{bundle.root} has no verified engine for this machine ({have}):"
            f" make one with `storm build {bundle.root} --target {targets[0]}`."
        )
    return max(usable, key=lambda e: e.created)


def engine_names(bundle: Bundle) -> list[str]:
    """The engines in a bundle, by name."""
    return sorted(p.parent.name for p in _records(bundle))


def _records(bundle: Bundle) -> list[Path]:
    folder = bundle.path("engines")
    return [p for p in folder.glob(f"*/{ENGINE_JSON}") if not p.parent.name.startswith(".")]
