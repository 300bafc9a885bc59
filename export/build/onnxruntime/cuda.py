"""Engines that ONNX Runtime runs in CUDA: prepared anywhere, verified and published on a machine with a GPU.

Nothing is compiled: the engine is the prepared graphs. Where the GPU is elsewhere, every node is held against the list
of kernels of one release of ONNX Runtime, and the numbers are checked on the CPU, in fp32 what a CPU does not multiply.
"""

from __future__ import annotations

import importlib.metadata

from storm_edge.export.build.goal import Goal
from storm_edge.export.build.prepared import command_for, key_of, prepare_here, prepared_before
from storm_edge.export.build.publish import (
    RELEASE,
    Progress,
    building,
    new_record,
    publish,
    require_match,
    verified,
)
from storm_edge.plugins.libraries import ONNXRUNTIME, build_command, find_library
from storm_edge.runtime.bundle.engine import EngineRecord, check_engine_once
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.config.sizes import kv_length
from storm_edge.runtime.errors import TargetError
from storm_edge.runtime.machine.memory import available_bytes, memory_limit
from storm_edge.runtime.machine.packages import import_onnxruntime_cuda
from storm_edge.runtime.plan.memory import llm_weights
from storm_edge.runtime.proof.uncompiled import PreparedChecks, verify_prepared
from storm_edge.runtime.proof.verify import memory_needed
from storm_edge.runtime.runners import RUNNERS

GIB = 2**30


def build_cuda(bundle: Bundle, goal: Goal, progress: Progress = lambda _: None) -> EngineRecord:
    """Prepare the graphs; where the GPU is, verify and publish them, else publish them as prepared.

    Raises TargetError with the command to run on the device where there is none here and not `prepare_only`, for nodes
    that CUDA has no kernel for, and where the operators are not built; EngineError for another ONNX Runtime;
    BuildError; ParityError.
    """
    compute = goal.here and not goal.options.prepare_only
    if compute:
        _require_device()
    with building(bundle, progress):
        record = _prepare(bundle, goal, progress)
        if compute:
            versions = record.versions | {RUNNERS[goal.runner].package: import_onnxruntime_cuda().__version__}
            update = {"versions": versions, "prepared_key": record.key}
            update |= {"prepared_graphs": record.graphs, "prepared_pieces": record.pieces}
            return publish(bundle, verified(bundle, record.model_copy(update=update), goal.options, progress))
        record = publish(bundle, _checked(bundle, goal, record, progress))
    if not goal.options.prepare_only:
        raise TargetError(
            f"prepared {goal.name}, but this machine has no NVIDIA GPU: copy {bundle.root} to one that has and run"
            f" `{command_for(bundle, goal, goal.options)}` there (--prepare-only ends here without an error)."
        )
    return record


def _require_device() -> None:
    """Raise EngineError where ONNX Runtime has no CUDA here, TargetError without the operators."""
    from storm_edge.runtime.sessions.onnxruntime_cuda import OLDEST

    import_onnxruntime_cuda(OLDEST)
    if find_library(ONNXRUNTIME) is None:
        raise TargetError(
            "the operators are not built for ONNX Runtime, and without them the scan is a loop over all tokens of a"
            f" clip: build them with `{build_command()}`, where nvcc is."
        )


def _prepare(bundle: Bundle, goal: Goal, progress: Progress) -> EngineRecord:
    """The record of the prepared graphs, which are made where they are not there yet; nothing has run them."""
    options = goal.options
    made_of: list[object] = [importlib.metadata.version(RELEASE), bundle.sha256, goal.precision, goal.llm_precision]
    key = key_of([*made_of, goal.calibrated_by, options.max_frames, options.max_length, options.int4_block])
    found = prepared_before(bundle, goal.name, key)
    if found is not None:
        check_engine_once(bundle, found, progress)
        return found
    graphs, files = prepare_here(bundle, goal, progress)
    # With onnx, which a device need not have.
    from storm_edge.export.build.onnxruntime.kernels import published, require_kernels
    from storm_edge.export.build.pieces import temporal_pieces

    pieces, cut = temporal_pieces(bundle, goal.name, graphs["temporal"])
    require_kernels(bundle, goal, graphs)
    length = kv_length(bundle.config, options.max_frames, options.max_length)
    versions = {RUNNERS[goal.runner].package: published()["version"]}
    more = {"key": key, "max_length": length, "pieces": pieces}
    return new_record(bundle, goal, "prepared", graphs, files | cut, versions, **more)


def _checked(bundle: Bundle, goal: Goal, record: EngineRecord, progress: Progress) -> EngineRecord:
    """The record with what could be checked of its graphs here; raises ParityError as `require_match`."""
    if record.verification or record.unchecked:  # when it was prepared
        require_match(record.verification, bundle, record, goal.options)
        return record
    progress("verify the prepared graphs in ONNX Runtime")
    checks, wide, files = PreparedChecks(), dict(record.graphs), dict(record.files)
    needed = llm_weights(bundle.config, "int4" if goal.llm_precision == "int4" else "fp32")
    if needed > available_bytes() / 2:
        checks.unchecked["decoder"] = f"its {needed / GIB:.1f} GiB of weights are too many for the memory here"
        del wide["decoder"]
    in_fp32: list[Stage] = [stage for stage in wide if _precision(goal, stage) == "bf16"]
    if in_fp32:
        from storm_edge.export.build.prepare import prepared_graph
        from storm_edge.export.build.steps import steps_for
        from storm_edge.export.passes.widen import widen_step

        for stage in in_fp32:
            steps = [*steps_for(bundle, goal, stage), widen_step()]
            wide[stage], made = prepared_graph(bundle, stage, goal.name, steps)
            files |= made
    pieces = record.pieces
    if "temporal" in in_fp32:
        from storm_edge.export.build.pieces import temporal_pieces

        pieces, cut = temporal_pieces(bundle, goal.name, wide["temporal"])
        files |= cut
    run = record.model_copy(update={"graphs": wide, "pieces": pieces, "files": files})
    with memory_limit(memory_needed(bundle)):
        found = verify_prepared(bundle, run, in_fp32, threads=goal.options.threads)
    require_match(found.results, bundle, record, goal.options)
    return record.model_copy(update={"verification": found.results, "unchecked": checks.unchecked | found.unchecked})


def _precision(goal: Goal, stage: Stage) -> str:
    return goal.llm_precision if stage == "decoder" else goal.precision
