"""Engines for TensorRT and TensorRT for RTX: prepare anywhere, compile on the machine they are for.

engines/<name>/ holds engine.json and one `<stage>.engine` for every graph compiled. A build whose key (bundle, prepared
graphs, versions, GPU, options) is that of the engine already there is not repeated. TensorRT for RTX also compiles for
GPUs that are not there; the machine that has one then verifies the engine without compiling it again.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from storm_edge.export.build import language
from storm_edge.export.build.goal import Goal
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepared import command_for, existing, key_of, prepare_here, prepared_before
from storm_edge.export.build.publish import (
    RELEASE,
    Progress,
    building,
    new_record,
    publish,
    require_match,
    verified,
    write,
)
from storm_edge.export.build.tensorrt.engines import compiled_engines, layers_of
from storm_edge.export.build.tensorrt.plugin import plugin_for
from storm_edge.export.build.tensorrt.profiles import of_short_clips
from storm_edge.export.build.tensorrt.versions import abilities
from storm_edge.runtime.bundle.engine import ENGINE_JSON, EngineRecord
from storm_edge.runtime.bundle.manifest import STAGES, Bundle, describe_file
from storm_edge.runtime.bundle.publish import publish_folder, publish_text
from storm_edge.runtime.bundle.records import to_json
from storm_edge.runtime.bundle.trust import is_ours, sealed
from storm_edge.runtime.config.sizes import kv_length, whole_frames
from storm_edge.runtime.errors import TargetError
from storm_edge.runtime.machine.memory import memory_limit
from storm_edge.runtime.machine.packages import require_package
from storm_edge.runtime.proof.uncompiled import verify_prepared
from storm_edge.runtime.proof.verify import memory_needed


def build_tensorrt(bundle: Bundle, goal: Goal, progress: Progress = lambda _: None) -> EngineRecord:
    """Prepare the graphs, compile them if this machine is the target, verify and publish.

    Returns the record: of state "prepared" where `prepare_only`, "compiled" where `sms` names only GPUs that are not
    here. Raises TargetError with the command to run on the device; BuildError; ParityError.
    """
    options, plugin = goal.options, plugin_for(bundle, goal)
    with building(bundle, progress):
        record = _prepare(bundle, goal, options, progress)
        if options.prepare_only:
            return record
        if not goal.sms:
            here = "compile here for another machine's GPU with --sm 86,89,120 for instance, or "
            raise TargetError(
                f"prepared {goal.name}, but this machine is no {goal.where.name}:"
                f" {'' if goal.timed else here}copy {bundle.root} to one and run"
                f" `{command_for(bundle, goal, options)}` there (--prepare-only ends here without an error)."
            )
        return _compile(bundle, record, goal, plugin, options, progress)


def _prepare(bundle: Bundle, goal: Goal, options: BuildOptions, progress: Progress) -> EngineRecord:
    """The record of the prepared graphs, which are made and checked where they are not there yet."""
    # A release may prepare otherwise than the one before; a device cannot ask the passes, which need onnx.
    release = importlib.metadata.version(RELEASE)
    made_of: list[object] = [release, bundle.sha256, goal.precision, goal.llm_precision, goal.llm_runner]
    made_of += [goal.calibrated_by, abilities(goal.parsed_version, goal.graphs), options.stages, options.tp]
    made_of += [options.max_frames, options.max_length, options.min_shapes, options.opt_shapes, options.max_shapes]
    made_of += [options.wide_softmax, options.decoder_profiles]
    key = key_of([*made_of, options.int4_block])
    found = prepared_before(bundle, goal.name, key)
    if found is not None:
        require_match(found.verification, bundle, found, options)
        return found
    graphs, files = prepare_here(bundle, goal, progress)
    from storm_edge.export.build.pieces import temporal_pieces  # with onnx, which a device need not have

    pieces: dict[str, str] = {}
    shapes = dict(goal.profiles)
    if "temporal" in graphs and options.max_frames > whole_frames(bundle.config):
        pieces, cut = temporal_pieces(bundle, goal.name, graphs["temporal"])
        files |= cut
        if pieces:
            shapes["temporal"] = of_short_clips(shapes["temporal"], bundle.config)
    length = kv_length(bundle.config, options.max_frames, options.max_length) if "decoder" in goal.graphs else None
    record = new_record(
        bundle,
        goal,
        "prepared",
        graphs,
        files,
        {"tensorrt": goal.version},
        key=key,
        pieces=pieces,
        max_length=length or options.max_length,
        tp=options.tp,
        profiles=shapes,
        wide_softmax=options.wide_softmax,
    )
    progress("verify the prepared graphs in ONNX Runtime")
    with memory_limit(memory_needed(bundle)):
        checks = verify_prepared(bundle, record, threads=options.threads)
    require_match(checks.results, bundle, record, options)
    record = record.model_copy(update={"verification": checks.results, "unchecked": checks.unchecked})
    before = existing(bundle, record.name)
    if goal.sms and not options.prepare_only and before is not None and before.state != "prepared":
        return record  # an engine stays until the one that replaces it is compiled
    return publish(bundle, record, lambda folder: language.placed(bundle, goal, record, folder, progress))


def _compile(
    bundle: Bundle, prepared: EngineRecord, goal: Goal, plugin: Path | None, options: BuildOptions, progress: Progress
) -> EngineRecord:
    """Compile what is not compiled yet, and verify it if its GPU is here."""
    installed, versions = require_package(goal.runner), language.versions(bundle, goal)
    # TensorRT times its kernels on the GPU it builds on; TensorRT for RTX compiles for a compute capability.
    gpus = [[gpu.name, gpu.sm] for gpu in goal.machine.gpus] if goal.timed else []
    key = key_of([prepared.key, installed, versions, _sha256(plugin), gpus, options.workspace_gib])
    found = existing(bundle, prepared.name)
    # An engine of somebody else is not taken for what would be built here, whatever its record says.
    ours = found is not None and (options.trust_engines or is_ours(found))
    if found is not None and ours and found.key == key and set(goal.sms) <= set(found.sms):
        if found.state == "built" or not goal.here or set(found.graphs) != set(STAGES):
            progress("unchanged")
            require_match(found.verification, bundle, found, options)
            return found
        return _verify_compiled(bundle, found, options, progress)
    with publish_folder(bundle.root, f"engines/{prepared.name}") as folder:
        prepared = language.placed(bundle, goal, prepared, folder, progress)
        compiled = compiled_engines(bundle, prepared, folder, plugin, goal, progress)
        graphs = {job.stage: job.file for job in compiled if not job.piece}
        pieces = {job.piece: job.file for job in compiled if job.piece}
        version = compiled[-1].result.version if compiled else installed
        record = prepared.model_copy(
            update={
                "state": "compiled",
                "key": key,
                "sms": list(goal.sms),
                "graphs": prepared.graphs | graphs,
                "pieces": prepared.pieces | pieces,
                "files": prepared.files | {job.file: describe_file(folder / Path(job.file).name) for job in compiled},
                "versions": prepared.versions | versions | {"tensorrt": version},
                "plugin_sha256": _sha256(plugin),
                "layers": {stage: layers_of(compiled, stage) for stage in graphs},
                "prepared_key": prepared.key,
                "prepared_graphs": prepared.graphs,
                "prepared_pieces": prepared.pieces,
                "build_seconds": {s: sum(job.result.seconds for job in compiled if job.stage == s) for s in graphs},
                "peak_memory_bytes": max((job.result.peak_memory_bytes for job in compiled), default=0),
            }
        )
        record = language.compiled(bundle, goal, record, folder, progress)
        if goal.here and set(record.graphs) == set(STAGES):  # a part of a model cannot be run
            staged = folder.relative_to(bundle.root.absolute()).as_posix()
            record = verified(bundle, record, options, progress, staged)
        return write(folder, record)


def _verify_compiled(bundle: Bundle, found: EngineRecord, options: BuildOptions, progress: Progress) -> EngineRecord:
    """Verify an engine that was compiled on a machine without its GPU, and say so in its record."""
    record = sealed(verified(bundle, found, options, progress))
    publish_text(bundle.root, f"engines/{record.name}/{ENGINE_JSON}", to_json(record))
    return record


def _sha256(plugin: Path | None) -> str | None:
    return describe_file(plugin).sha256 if plugin else None
