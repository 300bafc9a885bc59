"""Publication of an engine, one for every builder: under a lock, verified, sealed, and nothing left of what failed."""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

from storm_edge.export.build.goal import Goal
from storm_edge.export.build.leftovers import drop_unused_graphs, removed_on_failure
from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.bundle.engine import ENGINE_JSON, CheckResult, EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle, FileSpec, Stage
from storm_edge.runtime.bundle.publish import lock, publish_folder
from storm_edge.runtime.bundle.records import to_json
from storm_edge.runtime.bundle.trust import sealed
from storm_edge.runtime.machine.memory import memory_limit
from storm_edge.runtime.proof.verify import memory_needed, require, verify
from storm_edge.runtime.runners import RUNNERS

Progress = Callable[[str], None]
RELEASE = "storm-edge"


@contextmanager
def building(bundle: Bundle, progress: Progress) -> Iterator[None]:
    """Hold the engines of a bundle that is whole; graphs that no engine names are gone after the block."""
    bundle.check_once(progress)
    with lock(bundle.root, "engines", progress), removed_on_failure(bundle):
        yield
        drop_unused_graphs(bundle)


def new_record(
    bundle: Bundle,
    goal: Goal,
    state: Literal["prepared", "built"],
    graphs: dict[Stage, str],
    files: dict[str, FileSpec],
    versions: Mapping[str, str],
    **more: Any,
) -> EngineRecord:
    """The record of an engine that nothing has verified yet, made now; `versions` beside storm-edge's own."""
    return EngineRecord(
        name=goal.name,
        target=goal.where.name,
        precision=goal.precision,
        llm_precision=goal.llm_precision,
        state=state,
        simulated=goal.options.simulate,
        bundle_sha256=bundle.sha256,
        graphs=graphs,
        runners=goal.runners,
        files=files,
        versions={RELEASE: importlib.metadata.version(RELEASE), **versions},
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        verified=False,
        verification=[],
        calibration=goal.calibrated_by,
        **more,
    )


def verified(
    bundle: Bundle,
    record: EngineRecord,
    options: BuildOptions,
    progress: Progress,
    staged: str = "",
) -> EngineRecord:
    """The record of an engine that was built, after running it; its own files are in the folder `staged` of the bundle
    as long as they are not published.

    Raises ParityError where it fails and not `allow_mismatch`.
    """
    own = f"engines/{record.name}/"
    here = {
        kind: {k: f"{staged}/{f.removeprefix(own)}" if staged and f.startswith(own) else f for k, f in files.items()}
        for kind, files in (("graphs", record.graphs), ("pieces", record.pieces))
    }
    running = record.model_copy(update={"state": "built", **here})
    on_cpu = all(RUNNERS[runner].device == "cpu" for runner in record.runners.values())
    with memory_limit(memory_needed(bundle)) if on_cpu else nullcontext():
        results = verify(bundle, running, threads=options.threads, progress=lambda clip: progress(f"verify {clip}"))
    require_match(results, bundle, record, options)
    passed = all(r.passed for r in results)
    return record.model_copy(update={"state": "built", "verified": passed, "verification": results})


def require_match(results: list[CheckResult], bundle: Bundle, record: EngineRecord, options: BuildOptions) -> None:
    """Raise ParityError where a check failed and not `allow_mismatch`."""
    if not options.allow_mismatch:
        require(results, bundle, record)


def publish(bundle: Bundle, record: EngineRecord, fill: Callable[[Path], EngineRecord] | None = None) -> EngineRecord:
    """Publish an engine whose files are graphs of the bundle, and what `fill` puts into its folder and record.

    Returns the sealed record.
    """
    with publish_folder(bundle.root, f"engines/{record.name}") as folder:
        return write(folder, fill(folder) if fill else record)


def write(folder: Path, record: EngineRecord) -> EngineRecord:
    """Write the record into the folder that is being published; returns it sealed."""
    record = sealed(record)
    (folder / ENGINE_JSON).write_text(to_json(record), encoding="utf-8")
    return record
