"""Engines: what a build made of a bundle for one target, and which of them to use.

`engines/<name>/engine.json` says what the engine is made of and how it was verified. The name is
target-precision, with the language model's precision added where it differs: `cpu-fp32`, `cpu-int8-llm-int4`. One that
another runner than the target's own runs is named by it too, and by its GPUs: `h100-fp16-tensorrt-llm-bf16-tp2`.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError, field_serializer

from storm_edge.runtime.bundle.contract import STAGES, Stage
from storm_edge.runtime.bundle.door import folders_in, is_file, open_file, size_of
from storm_edge.runtime.bundle.hashes import Remembered, sha256_of
from storm_edge.runtime.bundle.manifest import Bundle, FileSpec
from storm_edge.runtime.bundle.records import read_record, said
from storm_edge.runtime.errors import EngineError, UsageError
from storm_edge.runtime.machine.targets import PRECISIONS, TARGETS
from storm_edge.runtime.runners import RUNNERS, RunnerName

ENGINE_JSON = "engine.json"
ENGINE_FILE = ".engine"  # ends the names of TensorRT's
ENGINE_SCHEMA = 3
SIMULATED = "-simulated"  # ends the name of an engine that stands in for another
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_RECORD_BYTES = 4 << 20
PIECE = r"(\d+\.(enter|states|mix)|pool)"
# What builds prepare lies in graphs/ under such names, beside the data it shares with other graphs.
PREPARED = re.compile(rf".+\.[0-9a-f]{{12}}\.({'|'.join(STAGES)})(\.{PIECE})?\.(onnx|data)")


def _known(name: str) -> str:
    if name not in PRECISIONS:
        raise ValueError(f"there is no precision {name[:40]!r}")
    return name


def _of_encoders(name: str) -> str:
    if name == "int4":
        raise ValueError("int4 is for language models alone")
    return name


PrecisionName = Annotated[str, AfterValidator(_known)]


PieceName = Annotated[str, StringConstraints(pattern=rf"^{PIECE}$")]


class CheckResult(BaseModel):
    """One row of a verification: a stage of a clip, what was measured, and what is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

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

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    min: list[int]
    opt: list[int]
    max: list[int]


class FoundLayers(BaseModel):
    """What became of a network's layers in a compiled engine; None where nothing told.

    `plugins` are the operators' layers in the network, `attentions` those that were written as single steps, which a
    builder may or may not fuse.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    plugins: int = 0
    plugins_found: int | None = None
    attentions: int = 0
    attentions_fused: int | None = None


class EngineRecord(BaseModel):
    """What engine.json says. `graphs` maps a stage to the file in the bundle that is run for it,
    `runners` to what runs it; `pieces` of the temporal encoder, by name, are what longer clips go through.

    `state`: "prepared" graphs are not compiled; "compiled" ones are for GPUs that were not there, and nothing has run
    them; "built" ones were verified where they run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    schema_version: int = ENGINE_SCHEMA
    name: str
    target: str
    precision: Annotated[PrecisionName, AfterValidator(_of_encoders)]
    llm_precision: PrecisionName
    state: Literal["prepared", "compiled", "built"]
    bundle_sha256: str
    graphs: dict[Stage, str]
    pieces: dict[PieceName, str] = {}
    runners: dict[Stage, RunnerName]
    files: dict[str, FileSpec]
    versions: dict[str, str]
    created: str
    verified: bool
    verification: list[CheckResult]
    unchecked: dict[Stage, str] = {}  # of prepared graphs: those that could not be run where they were made, and why
    calibration: str = ""  # of int8 and fp8: the name and hash of the ranges and layers
    notes: list[str] = []  # what who built it should know
    simulated: bool = False  # ONNX Runtime runs the quantized graphs of another engine as they are written
    # Of engines that were compiled: what of and for, and what that took.
    sms: list[int] = []
    max_length: int | None = None  # tokens of the KV cache, where fewer than the model's
    tp: int = 1  # GPUs that share the language model
    key: str = ""
    prepared_key: str = ""
    seal: str = ""  # see trust.py
    prepared_graphs: dict[Stage, str] = {}
    prepared_pieces: dict[PieceName, str] = {}
    profiles: dict[Stage, list[dict[str, ProfileShapes]]] = {}  # in the engine's order
    plugin_sha256: str | None = None  # None: the scan is expanded into single steps
    layers: dict[Stage, FoundLayers] = {}
    wide_softmax: bool = False  # where attention is written as single steps, softmax is between casts to fp32
    build_seconds: dict[Stage, float] = {}
    peak_memory_bytes: int = 0


def engine_name(target: str, precision: str, llm_precision: str, chosen: str = "", tp: int = 1) -> str:
    """The folder name of an engine; `chosen` is the language model's runner where it is not the target's own."""
    if chosen:
        return f"{target}-{precision}-{chosen}-{llm_precision}" + (f"-tp{tp}" if tp > 1 else "")
    return f"{target}-{precision}" + (f"-llm-{llm_precision}" if llm_precision != precision else "")


def build_again(bundle: Bundle, record: EngineRecord) -> str:
    """The command that builds an engine like this one."""
    runner = record.runners.get("decoder", "")
    known = TARGETS.get(record.target)
    llm = f" --llm {runner}" if known and runner in known.llm_choices else ""
    return f"storm build {bundle.root} --target {record.target}{llm}" + (f" --tp {record.tp}" if record.tp > 1 else "")


def read_engine(bundle: Bundle, name: str) -> EngineRecord:
    """Read one engine and check that it belongs to this bundle and its files are there; raises EngineError.

    Whose engine it is does not matter here: see trust.py.
    """
    json_name = f"engines/{name}/{ENGINE_JSON}"
    again = f"repeat `storm build {bundle.root} --target {name.split('-')[0][:20]}`"
    if not _NAME.fullmatch(name) or not is_file(bundle.root, json_name):
        known = ", ".join(engine_names(bundle)) or "none"
        raise UsageError(f"{bundle.root} has no engine {name[:80]!r} (it has: {known}): {again} or choose another.")
    path = bundle.root / json_name
    data = read_record(bundle.root, json_name, "the engine", EngineError, _RECORD_BYTES)
    version = data.get("schema_version")
    if version != ENGINE_SCHEMA:
        raise EngineError(f"{path} has schema version {str(version)[:40]}, this one reads {ENGINE_SCHEMA}: {again}.")
    try:
        record = EngineRecord.model_validate(data)
    except ValidationError as e:
        raise EngineError(f"{path} is damaged ({said(e)}): {again}.") from e
    if record.bundle_sha256 != bundle.sha256:
        raise EngineError(f"{path} was built from another bundle: {again}.")
    if record.name != name:
        raise EngineError(f"{path} is the record of an engine called {record.name[:80]!r}: {again}.")
    foreign = [f for f in record.files if not f.startswith((f"engines/{name}/", f"graphs/{name}."))]
    foreign += [f for f in record.graphs.values() if f not in record.files and f not in bundle.manifest.files]
    foreign += [f for f in record.pieces.values() if f not in record.files]
    if foreign:
        raise EngineError(f"{path} names {foreign[0][:120]!r}, which is none of its own files: {again}.")
    if set(record.runners) != set(record.graphs):
        raise EngineError(f"{path} does not say what runs each of its stages: {again}.")
    compiled = [r for r in record.runners.values() if RUNNERS[r].compiles and not RUNNERS[r].language]
    if compiled and "tensorrt" not in record.versions:
        raise EngineError(f"{path} does not say which TensorRT built it: {again}.")
    for file, spec in record.files.items():
        try:
            size = size_of(bundle.root, file)
        except FileNotFoundError:
            size = -1
        if size != spec.size:
            raise EngineError(f"{bundle.root / file} is missing or has another size than when it was built: {again}.")
    return record


def check_engine_hashes(bundle: Bundle, record: EngineRecord) -> None:
    """Hash every file a build added; raises EngineError naming the first that changed."""
    for file, spec in record.files.items():
        with open_file(bundle.root, file) as opened:
            if sha256_of(opened) != spec.sha256:
                raise _damaged(bundle, record, file)


def check_engine_once(bundle: Bundle, record: EngineRecord, progress: Callable[[str], None] = lambda _: None) -> None:
    """Hash the files that were not hashed on this machine as they are now; raises EngineError."""
    changed = Remembered(bundle.root).changed({n: s.sha256 for n, s in record.files.items()}, progress)
    if changed is not None:
        raise _damaged(bundle, record, changed)


def _damaged(bundle: Bundle, record: EngineRecord, file: str) -> EngineError:
    return EngineError(f"{bundle.root / file} is damaged: repeat `{build_again(bundle, record)}`.")


def engine_names(bundle: Bundle) -> list[str]:
    """The engines in a bundle, by name."""
    names = [name for name in folders_in(bundle.root, "engines") if _NAME.fullmatch(name)]
    return [name for name in names if is_file(bundle.root, f"engines/{name}/{ENGINE_JSON}")]


def built_at(record: EngineRecord) -> float:
    """When an engine was built, in seconds since 1970; before everything where it does not say, or says the future."""
    now = datetime.datetime.now(datetime.timezone.utc)
    try:
        created = datetime.datetime.fromisoformat(record.created)
    except ValueError:
        return -math.inf
    if created.tzinfo is None or created > now + datetime.timedelta(days=1):  # clocks differ a little
        return -math.inf
    return created.timestamp()
