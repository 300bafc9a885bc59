"""Engines for ONNX Runtime on a CPU: the canonical graphs, widened to fp32 where they are of a half type."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import onnx

from storm_edge.export.graph_file import save_model
from storm_edge.export.passes.widen import widen
from storm_edge.runtime.bundle import STAGES, Bundle, FileSpec, Stage, describe_file, to_json
from storm_edge.runtime.engine import ENGINE_JSON, EngineRecord, engine_name
from storm_edge.runtime.errors import ParityError
from storm_edge.runtime.publish import lock, staging
from storm_edge.runtime.targets import check_precision, target
from storm_edge.runtime.verify import require, verify

TARGET = "cpu"
_PASSES = "widen-1"  # changes with the passes below, so that graphs prepared by older ones are not taken


def build_cpu(
    bundle: Bundle,
    precision: str | None = None,
    llm_precision: str | None = None,
    *,
    allow_mismatch: bool = False,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> EngineRecord:
    """Prepare, verify and publish an engine in the bundle; returns its record.

    Raises TargetError for a precision the CPU has not, ParityError where the engine fails verification and not
    `allow_mismatch`; nothing is published then.
    """
    precision = check_precision(target(TARGET), precision)
    llm_precision = check_precision(target(TARGET), llm_precision or precision)
    name = engine_name(TARGET, precision, llm_precision)
    with lock(bundle.root / "engines"):
        graphs: dict[Stage, str] = {}
        files: dict[str, FileSpec] = {}
        for stage in STAGES:
            progress(f"prepare {stage}")
            graphs[stage], made = _prepare(bundle, stage, name)
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


def _prepare(bundle: Bundle, stage: Stage, name: str) -> tuple[str, dict[str, FileSpec]]:
    """The graph to run for a stage, and the files that had to be made for it."""
    spec = bundle.manifest.graphs[stage]
    if bundle.manifest.dtype == "float32":
        return spec.file, {}
    source = bundle.path(spec.file)
    made_of = bundle.manifest.files[spec.file].sha256 + _PASSES
    stem = f"graphs/{name}.{hashlib.sha256(made_of.encode()).hexdigest()[:12]}.{stage}"
    files = (f"{stem}.onnx", f"{stem}.data")
    model = onnx.load(source)
    widen(model)
    staged = bundle.path(f"{stem}.partial.onnx")
    save_model(model, staged, Path(files[1]).name)
    staged.replace(bundle.path(files[0]))  # the graph appears when its data is complete
    return files[0], {f: describe_file(bundle.path(f)) for f in files if bundle.path(f).exists()}
