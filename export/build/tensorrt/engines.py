"""The engine files that a prepared record asks for: one a stage, and one for each piece of the temporal encoder.

A pipeline has either the whole temporal encoder on the GPU or its pieces, never both. The weights are twice on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from storm_edge.export.build.goal import Goal
from storm_edge.export.build.publish import Progress
from storm_edge.export.build.tensorrt.compile import compile_graph
from storm_edge.export.build.tensorrt.compile_job import CompileJob, CompileResult
from storm_edge.export.build.tensorrt.memory import builder_limits
from storm_edge.export.build.tensorrt.profiles import piece_profile
from storm_edge.export.build.tensorrt.timing import timing_cache
from storm_edge.runtime.bundle.engine import ENGINE_FILE, EngineRecord, FoundLayers
from storm_edge.runtime.bundle.engine_graphs import engine_graph, engine_piece
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.runners import RUNNERS


@dataclass(frozen=True)
class CompiledEngine:
    """An engine file in the bundle, of a stage or of a piece of it."""

    stage: Stage
    piece: str
    file: str
    result: CompileResult


def compiled_engines(
    bundle: Bundle, record: EngineRecord, folder: Path, plugin: Path | None, goal: Goal, progress: Progress
) -> list[CompiledEngine]:
    """Compile the graphs of a prepared engine into `folder`."""
    wanted: list[tuple[Stage, str]] = [(s, "") for s in goal.graphs if RUNNERS[record.runners[s]].compiles]
    wanted += [("temporal", piece) for piece in record.pieces]
    done = []
    for stage, piece in wanted:
        job = _job(bundle, record, stage, piece, folder, plugin, goal)
        file = f"engines/{record.name}/{Path(job.engine).name}"
        done.append(CompiledEngine(stage, piece, file, compile_graph(job, progress)))
    return done


def _job(
    bundle: Bundle, record: EngineRecord, stage: Stage, piece: str, folder: Path, plugin: Path | None, goal: Goal
) -> CompileJob:
    workspace, tactics = builder_limits(goal.machine, goal.where.integrated, goal.options.workspace_gib)
    graph = engine_piece(bundle, record, piece) if piece else engine_graph(bundle, record, stage)
    scans = stage == "temporal" and piece.rpartition(".")[2] not in ("enter", "pool")
    return CompileJob(
        package=RUNNERS[goal.runner].package,
        graph=str(graph),
        engine=str(folder / (f"{stage}.{piece}{ENGINE_FILE}" if piece else f"{stage}{ENGINE_FILE}")),
        profiles=[piece_profile(bundle.config, piece)] if piece else record.profiles[stage],
        plugins=[str(plugin)] if plugin and scans else [],
        compute_capabilities=list(goal.options.sms),
        workspace_bytes=workspace,
        tactic_bytes=tactics,
        # Timings of a GPU that is not here are not to be had.
        timing_cache=str(timing_cache(goal)) if goal.here else None,
        captured=stage == "decoder",
    )


def layers_of(compiled: list[CompiledEngine], stage: Stage) -> FoundLayers:
    """What was found in all engines of a stage; None where one of those that were asked did not tell."""

    def total(counts: list[tuple[int, int | None]]) -> int | None:
        told = [found for number, found in counts if number]
        return sum(n for n in told if n is not None) if told and None not in told else None

    parts = [job.result.layers for job in compiled if job.stage == stage]
    return FoundLayers(
        plugins=sum(part.plugins for part in parts),
        plugins_found=total([(part.plugins, part.plugins_found) for part in parts]),
        attentions=sum(part.attentions for part in parts),
        attentions_fused=total([(part.attentions, part.attentions_fused) for part in parts]),
    )
