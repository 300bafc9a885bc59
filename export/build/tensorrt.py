"""Engines for TensorRT and TensorRT for RTX: prepare anywhere, compile on the machine they are for.

engines/<name>/ holds engine.json and one `<stage>.engine` for every graph compiled. A build whose key (bundle, prepared
graphs, versions, GPU, options) is that of the engine already there is not repeated.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

from storm_edge.export.build.compile import compile_graph
from storm_edge.export.build.compile_job import Api, CompileJob
from storm_edge.export.build.options import BuildOptions, abilities, parse_version
from storm_edge.export.calibrated import find_calibration
from storm_edge.plugins.libraries import TENSORRT, find_library
from storm_edge.runtime.bundle import Bundle, Stage, describe_file, to_json
from storm_edge.runtime.engine import ENGINE_JSON, EngineRecord, Shapes, engine_name, read_engine
from storm_edge.runtime.errors import EngineError, TargetError, UsageError
from storm_edge.runtime.machine import Machine, probe
from storm_edge.runtime.publish import lock, staging
from storm_edge.runtime.targets import Target, check_llm_precision, check_precision
from storm_edge.runtime.verify import require, verify, verify_prepared

CHUNK = 256  # tokens of one prefill step
NEWEST = "10.16"  # prepared for where neither the machine nor the target's software says otherwise
RTX_AS = "10.15"  # TensorRT for RTX has versions of its own; its parser knows what 10.15's does
_TIMING_CACHE = "engines/timing.cache"


def build_tensorrt(
    bundle: Bundle, where: Target, options: BuildOptions, progress: Callable[[str], None] = lambda _: None
) -> EngineRecord:
    """Prepare the graphs, compile them if this machine is the target, verify and publish.

    Returns the record, of state "prepared" where this machine is not the target and `options.prepare_only`. Raises
    TargetError for what the target cannot do, or with the command to run on the device; BuildError; ParityError.
    """
    machine = probe()
    present = machine.gpus[0].sm if machine.gpus and where.name in machine.targets else None
    precision = check_precision(where, options.precision, options.sm or present)
    llm_precision = check_llm_precision(where, options.llm_precision)
    api: Api = "tensorrt_rtx" if where.engine == "tensorrt-rtx" else "tensorrt"
    here = where.name in machine.targets
    version = RTX_AS if api == "tensorrt_rtx" else options.tensorrt or _installed(api, here) or NEWEST
    name = engine_name(where.name, precision, llm_precision)
    ranges = find_calibration(bundle, options.calibration) if precision in ("int8", "fp8") else None
    calibration = f"{ranges.name} {ranges.sha256}" if ranges else ""
    with lock(bundle.root / "engines"):
        prepared_key = _hash(
            [
                bundle.sha256,
                precision,
                llm_precision,
                calibration,
                abilities(parse_version(version)),
                *_prepared_options(options),
            ]
        )
        record = _prepared(bundle, name, prepared_key)
        if record is None:
            progress("prepare")
            from storm_edge.export.build.prepare import prepare  # onnx, which a device need not have

            graphs, files = prepare(bundle, name, precision, llm_precision, parse_version(version), options)
            record = EngineRecord(
                name=name,
                target=where.name,
                precision=precision,
                llm_precision=llm_precision,
                state="prepared",
                bundle_sha256=bundle.sha256,
                graphs=graphs,
                files=files,
                versions={"storm-edge": importlib.metadata.version("storm-edge"), "tensorrt": version},
                created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                verified=False,
                verification=[],
                calibration=calibration,
                key=prepared_key,
                api=api,
                profiles=profiles(bundle, options),
            )
            progress("verify the prepared graphs in ONNX Runtime")
            results = verify_prepared(bundle, record)
            if not options.allow_mismatch:
                require(results, name)
            record = record.model_copy(update={"verification": results})
            _publish(bundle, record)
        if options.prepare_only:
            return record
        if not here:
            raise TargetError(
                f"prepared {name}, but this machine is no {where.name}: copy {bundle.root} to one and run"
                f" `storm build {bundle.root} --target {where.name} --precision {precision}"
                f" --llm-precision {llm_precision}` there (--prepare-only ends here without an error)."
            )
        return _compile_and_verify(bundle, record, machine, options, progress)


def profiles(bundle: Bundle, options: BuildOptions) -> dict[Stage, dict[str, Shapes]]:
    """Optimization profiles by stage and input: up to 16 frames a vision batch, `max_frames` a clip, CHUNK tokens."""
    config = bundle.config
    side, k, width = config.vision.image_size, config.reduction.temporal_pool, config.llm.hidden_size
    longest = options.max_frames // k * k
    if longest < k:
        raise UsageError(f"--max-frames {options.max_frames} is less than the {k} frames that are pooled: give more.")
    clip = [1, min(32 // k * k or k, longest), config.tokens_per_frame, width]
    made: dict[Stage, dict[str, Shapes]] = {
        "vision": {"frames": Shapes(min=[1, side, side, 3], opt=[8, side, side, 3], max=[16, side, side, 3])},
        "temporal": {"tokens": Shapes(min=[1, k, *clip[2:]], opt=clip, max=[1, longest, *clip[2:]])},
        # Most steps decode one token; a prefill step is long enough to be efficient anyway.
        "decoder": {
            "inputs_embeds": Shapes(min=[1, 1, width], opt=[1, 1, width], max=[1, CHUNK, width]),
            "position_ids": Shapes(min=[1, 1], opt=[1, 1], max=[1, CHUNK]),
        },
    }
    asked = {"min": dict(options.min_shapes), "opt": dict(options.opt_shapes), "max": dict(options.max_shapes)}
    known = {name for inputs in made.values() for name in inputs}
    unknown = {name for shapes in asked.values() for name in shapes} - known
    if unknown:
        raise UsageError(
            f"no graph has a dynamic input {', '.join(sorted(unknown))}: choose {', '.join(sorted(known))}."
        )
    return {stage: {n: _overridden(n, x, asked) for n, x in made[stage].items()} for stage in options.stages}


def _overridden(name: str, shapes: Shapes, asked: dict[str, dict[str, tuple[int, ...]]]) -> Shapes:
    """A profile with the shapes asked for; raises UsageError where they do not grow from min over opt to max."""
    sizes = shapes.model_dump() | {kind: list(given[name]) for kind, given in asked.items() if name in given}
    columns = list(zip(*sizes.values(), strict=False))
    if len({len(shape) for shape in sizes.values()}) > 1 or any(list(c) != sorted(c) for c in columns):
        raise UsageError(
            f"the profile of {name} is min {sizes['min']}, opt {sizes['opt']}, max {sizes['max']}: let it grow."
        )
    return Shapes(**sizes)


def _compile_and_verify(
    bundle: Bundle, prepared: EngineRecord, machine: Machine, options: BuildOptions, progress: Callable[[str], None]
) -> EngineRecord:
    assert prepared.api is not None
    installed = _installed(prepared.api, required=True)
    assert installed is not None
    plugin = find_library(TENSORRT)
    key = _hash(
        [
            prepared.key,
            installed,
            describe_file(plugin).sha256 if plugin else None,
            [[gpu.name, gpu.sm] for gpu in machine.gpus],
            options.workspace_gib,
        ]
    )
    found = _existing(bundle, prepared.name)
    if found is not None and found.state == "built" and found.key == key:
        progress("unchanged")
        return found
    with staging(bundle.root / "engines" / prepared.name) as folder:
        staged = folder.relative_to(bundle.root.absolute()).as_posix()
        seconds: dict[Stage, float] = {}
        peak = 0
        for stage, graph in prepared.graphs.items():
            result = compile_graph(_job(bundle, prepared, stage, graph, folder, plugin, options), progress)
            seconds[stage], peak = result.seconds, max(peak, result.peak_memory_bytes)
        record = prepared.model_copy(
            update={
                "state": "built",
                "key": key,
                "graphs": {stage: f"{staged}/{stage}.engine" for stage in prepared.graphs},
                "versions": prepared.versions | {"tensorrt": installed},
                "plugin_sha256": describe_file(plugin).sha256 if plugin else None,
                "prepared_key": prepared.key,
                "prepared_graphs": prepared.graphs,
                "build_seconds": seconds,
                "peak_memory_bytes": peak,
            }
        )
        results = verify(bundle, record, threads=options.threads, progress=progress)
        if not options.allow_mismatch:
            require(results, prepared.name)
        names: dict[Stage, str] = {stage: f"engines/{prepared.name}/{stage}.engine" for stage in prepared.graphs}
        made = {names[stage]: describe_file(folder / f"{stage}.engine") for stage in names}
        record = record.model_copy(
            update={
                "graphs": names,
                "files": prepared.files | made,
                "verified": all(r.passed for r in results),
                "verification": results,
            }
        )
        (folder / ENGINE_JSON).write_text(to_json(record), encoding="utf-8")
    return record


def _job(
    bundle: Bundle,
    record: EngineRecord,
    stage: Stage,
    graph: str,
    folder: Path,
    plugin: Path | None,
    options: BuildOptions,
) -> CompileJob:
    assert record.api is not None
    return CompileJob(
        api=record.api,
        graph=str(bundle.path(graph)),
        engine=str(folder / f"{stage}.engine"),
        profiles=record.profiles[stage],
        plugins=[str(plugin)] if plugin and stage == "temporal" else [],
        workspace_bytes=None if options.workspace_gib is None else int(options.workspace_gib * 2**30),
        timing_cache=str(bundle.root / _TIMING_CACHE),
    )


def _prepared_options(options: BuildOptions) -> list[object]:
    shapes = [options.min_shapes, options.opt_shapes, options.max_shapes]
    return [options.stages, options.max_frames, options.max_length, options.int4_block, shapes]


def _hash(made_of: list[object]) -> str:
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


def _existing(bundle: Bundle, name: str) -> EngineRecord | None:
    try:
        return read_engine(bundle, name)
    except (EngineError, UsageError):
        return None


def _prepared(bundle: Bundle, name: str, key: str) -> EngineRecord | None:
    """The prepared form of an engine, if it was prepared in the same way: of a built one too, whose graphs are kept."""
    found = _existing(bundle, name)
    if found is None:
        return None
    if found.state == "built" and found.prepared_key == key:
        return found.model_copy(
            update={
                "state": "prepared",
                "key": key,
                "graphs": found.prepared_graphs,
                "verified": False,
                "verification": [],
            }
        )
    return found if found.state == "prepared" and found.key == key else None


def _publish(bundle: Bundle, record: EngineRecord) -> None:
    with staging(bundle.root / "engines" / record.name) as folder:
        (folder / ENGINE_JSON).write_text(to_json(record), encoding="utf-8")


def _installed(api: Api, required: bool) -> str | None:
    """The version of an installed TensorRT package; TargetError where it is `required` and missing."""
    try:
        return importlib.metadata.version(api)
    except importlib.metadata.PackageNotFoundError:
        if required:
            raise TargetError(f"this machine is the target, but {api} is not installed: see docs/jetson.md.") from None
        return None
