"""Engines for ONNX Runtime on a CPU: the canonical graphs, widened to fp32 of half types, or quantized."""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Callable

import onnx

from storm_edge.export.build.prepare import INT4_KEPT, quantize_step
from storm_edge.export.build.prepared import Step, prepared_graph
from storm_edge.export.calibrated import find_calibration
from storm_edge.export.graph_file import Reader
from storm_edge.export.passes.nbits_weights import Bits, nbits_weights
from storm_edge.export.passes.widen import widen
from storm_edge.runtime.bundle import STAGES, Bundle, FileSpec, Stage, to_json
from storm_edge.runtime.engine import ENGINE_JSON, EngineRecord, engine_name
from storm_edge.runtime.errors import ParityError
from storm_edge.runtime.publish import lock, staging
from storm_edge.runtime.targets import check_llm_precision, check_precision, target
from storm_edge.runtime.verify import require, verify

TARGET = "cpu"
_BITS: dict[str, Bits] = {"int8": 8, "int4": 4}
_INT8_BLOCK = 128


def build_cpu(
    bundle: Bundle,
    precision: str | None = None,
    llm_precision: str | None = None,
    *,
    calibration: str | None = None,
    int4_block: int = 128,
    allow_mismatch: bool = False,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> EngineRecord:
    """Prepare, verify and publish an engine in the bundle; returns its record.

    Raises TargetError for a precision the CPU has not, BuildError where int8 lacks a calibration, ParityError where the
    engine fails verification and not `allow_mismatch`; nothing is published then.
    """
    precision = check_precision(target(TARGET), precision)
    llm_precision = check_llm_precision(target(TARGET), llm_precision)
    name = engine_name(TARGET, precision, llm_precision)
    ranges = find_calibration(bundle, calibration) if precision == "int8" else None
    wide: list[Step] = [] if bundle.manifest.dtype == "float32" else [("widen 1", widen)]
    with lock(bundle.root / "engines"):
        graphs: dict[Stage, str] = {}
        files: dict[str, FileSpec] = {}
        for stage in STAGES:
            progress(f"prepare {stage}")
            # CPUs multiply uint8 activations by int8 weights.
            if stage == "decoder":
                steps = [*wide, *_small_weights(llm_precision, int4_block)]
            else:
                steps = [*wide, quantize_step(ranges, stage, "uint8")] if ranges else wide
            graphs[stage], made = prepared_graph(bundle, stage, name, steps)
            files |= made
        record = EngineRecord(
            name=name,
            target=TARGET,
            precision=precision,
            llm_precision=llm_precision,
            state="built",
            bundle_sha256=bundle.sha256,
            graphs=graphs,
            files=files,
            versions={p: importlib.metadata.version(p) for p in ("storm-edge", "onnxruntime")},
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            verified=False,
            verification=[],
            calibration=f"{ranges.name} {ranges.sha256}" if ranges else "",
        )
        results = verify(bundle, record, threads=threads, progress=lambda clip: progress(f"verify {clip}"))
        try:
            require(results, name)
        except ParityError:
            if not allow_mismatch:
                raise
        verified = all(r.passed for r in results)
        record = record.model_copy(update={"verified": verified, "verification": results})
        with staging(bundle.root / "engines" / name) as folder:
            (folder / ENGINE_JSON).write_text(to_json(record), encoding="utf-8")
    return record


def _small_weights(precision: str, int4_block: int) -> list[Step]:
    """The pass that makes the language model's weights int8 or int4; none for fp32."""
    if precision not in _BITS:
        return []
    bits, block = _BITS[precision], int4_block if precision == "int4" else _INT8_BLOCK

    def apply(model: onnx.ModelProto, readers: dict[str, Reader]) -> None:
        nbits_weights(model, readers, bits, block, in_8=INT4_KEPT)

    return [(f"nbits 3 {bits} {block}", apply)]
