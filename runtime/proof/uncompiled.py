"""Checking graphs that were prepared for another machine, as far as ONNX Runtime's CPU runs them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storm_edge.runtime.answer.clip_tokens import ClipTokens
from storm_edge.runtime.answer.temporal import open_pieces
from storm_edge.runtime.bundle.engine import CheckResult, EngineRecord
from storm_edge.runtime.bundle.engine_graphs import engine_graph, engine_piece
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.bundle.reference import read_clip
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.llm.onnxruntime import open_generator
from storm_edge.runtime.proof.verify import IN_CHUNKS, LIMITS, LLM_LIMITS, check_decoder, compare, label_of, prompt_rows
from storm_edge.runtime.runners import RUNNERS
from storm_edge.runtime.sessions.device import HOST
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession

# Precision -> the type of a prepared graph's inputs, where ONNX Runtime has its kernels on a CPU.
_NUMPY = {"fp32": np.float32, "fp16": np.float16, "int8": np.float16, "fp8": np.float16}
_ENCODERS: tuple[tuple[Stage, str, str], ...] = (
    ("vision", "frames", "tokens"),
    ("temporal", "tokens", "visual_tokens"),
)


@dataclass
class PreparedChecks:
    """The figures of the stages that could be run, and why the others could not."""

    results: list[CheckResult] = field(default_factory=list)
    unchecked: dict[Stage, str] = field(default_factory=dict)


def verify_prepared(
    bundle: Bundle, record: EngineRecord, in_fp32: Collection[Stage] = (), *, threads: int | None = None
) -> PreparedChecks:
    """Run what ONNX Runtime can of a prepared engine's graphs and compare it with the reference, never with each other.

    The graphs of `in_fp32` are those of the engine widened, to be held to the engine's own limits.
    Raises EngineError for a graph that does not keep to the contract.
    """
    checks = PreparedChecks()
    for stage, given, expected in _ENCODERS:
        if stage in record.graphs:
            dtype = np.float32 if stage in in_fp32 else _NUMPY.get(record.precision)
            _check_encoder(bundle, record, stage, given, expected, dtype, checks, threads)
    if "decoder" in record.graphs:
        _check_language_model(bundle, record, checks, threads)
    return checks


def _check_encoder(
    bundle: Bundle,
    record: EngineRecord,
    stage: Stage,
    given: str,
    expected: str,
    dtype: Any,
    checks: PreparedChecks,
    threads: int | None,
) -> None:
    path = engine_graph(bundle, record, stage)
    if dtype is None:
        checks.unchecked[stage] = f"ONNX Runtime multiplies no {record.precision} matrices on a CPU"
        return
    try:
        session = OnnxRuntimeSession(path, threads, literal=record.precision in ("int8", "fp8"))
    except EngineError as e:  # a graph without function bodies needs the native operators, of its type
        checks.unchecked[stage] = str(e)
        return
    for name in bundle.manifest.clips:
        clip = read_clip(bundle, name)
        source = clip[given] if stage == "vision" else clip[given][None].astype(dtype)
        ours = session.run(**{given: source})[expected]
        checks.results.extend(compare(label_of(name), stage, ours, clip[expected], LIMITS[record.precision]))
        if stage == "temporal" and record.pieces:
            ours = _in_pieces(bundle, record, source[0], threads)
            checks.results.extend(compare(label_of(name), IN_CHUNKS, ours, clip[expected], LIMITS[record.precision]))


def _in_pieces(bundle: Bundle, record: EngineRecord, tokens: NDArray[Any], threads: int | None) -> NDArray[Any]:
    """Visual tokens (1, F, n, D) of tokens (T, N, D) that go through the pieces of the graph a group at a time."""
    literal = record.precision in ("int8", "fp8")
    k = bundle.config.reduction.temporal_pool
    pieces = open_pieces(
        bundle, record, lambda name: OnnxRuntimeSession(engine_piece(bundle, record, name), threads, literal=literal)
    )
    clip = ClipTokens(HOST, k, len(tokens))
    clip.add(tokens)
    return HOST.host(pieces.run(clip.blocks(), k, lambda: 0))


def _check_language_model(bundle: Bundle, record: EngineRecord, checks: PreparedChecks, threads: int | None) -> None:
    runner = RUNNERS[record.runners["decoder"]]
    if not runner.language:
        engine_graph(bundle, record, "decoder")
    if runner.compiles or runner.language:
        checks.unchecked["decoder"] = f"only {runner.words} runs this form of it"
        return
    try:
        generator = open_generator(bundle, record, HOST, threads)
    except EngineError as e:
        checks.unchecked["decoder"] = str(e)
        return
    for name in bundle.manifest.clips:
        clip = read_clip(bundle, name)
        limits = LLM_LIMITS[record.llm_precision]
        rows = prompt_rows(bundle, generator, clip, clip["visual_tokens"])
        checks.results.extend(check_decoder(generator, label_of(name), "decoder", clip, rows, limits))
