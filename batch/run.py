"""One run: what is missing in the folder of results is asked, here or on Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from storm_edge.batch.bundles import local_bundle
from storm_edge.batch.library import Item
from storm_edge.batch.local import answer_locally
from storm_edge.batch.predictor import Asking
from storm_edge.batch.rows import STAGES, Row
from storm_edge.batch.store import Store
from storm_edge.runtime.bundle.engine import EngineRecord, check_engine_once
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.trust import choose_engine
from storm_edge.runtime.errors import BuildError, UsageError
from storm_edge.runtime.machine.memory import available_bytes
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.plan.planning import default_options, make_plan
from storm_edge.runtime.runners import RUNNERS

MAX_WORKERS = 256
PROCESS_BYTES = 300 << 20  # of a worker: Python, its libraries, and frames that wait


class ErrorLimitError(BuildError):
    """More rows have an error than the run was to have."""


@dataclass
class Progress:
    """Where a run is. Rows are of this run; `seconds` are sums by stage, `reasons` of errors by their words."""

    videos: int
    rows: int = 0
    errors: int = 0
    done: int = 0  # videos
    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def wall(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float | None:
        """Expected seconds to the end; None before the first video is done."""
        return self.wall / self.done * (self.videos - self.done) if self.done else None

    def add(self, rows: Sequence[Row]) -> None:
        """Count the rows of a video."""
        self.done += 1
        for row in rows:
            self.rows += 1
            for stage, seconds in (row.seconds or {}).items():
                self.seconds[stage] += seconds
            if row.error is not None:
                self.errors += 1
                words = row.error.replace(row.video, "...")[:120]
                if words in self.reasons or len(self.reasons) < 100:
                    self.reasons[words] = self.reasons.get(words, 0) + 1


@dataclass(frozen=True)
class Where:
    """Who answers: `workers` processes here (None: as many as cores and memory allow), or Ray's cluster."""

    workers: int | None = None
    ray: str | None = None


def run(
    asking: Asking,
    items: Sequence[Item],
    store: Store,
    where: Where,
    *,
    max_errors: int | None = None,
    tell: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Ask what `store`, which is open, has no row of. Raises ErrorLimitError when what was answered is in the store."""
    bundle, record = engine_of(asking)
    missing = store.missing(items)
    progress = Progress(len(missing))

    def failed(item: Item, words: str, passing: bool) -> list[Row]:
        return [Row(item.video, q, record.name, bundle.sha256, error=words, passing=passing) for q in item.questions]

    if missing:
        for rows in _answers(asking, bundle, record, missing, where, failed):
            if rows:
                progress.add(rows)
                store.add(rows)
            else:
                store.tick()
            tell(progress)
            if max_errors is not None and progress.errors > max_errors:
                raise ErrorLimitError(
                    f"{progress.errors} rows have an error, --max-errors allows {max_errors}: see the column error in"
                    f" {store.out}, and run again when it is mended."
                )
    return progress


def _answers(
    asking: Asking,
    bundle: Bundle,
    record: EngineRecord,
    missing: Sequence[Item],
    where: Where,
    failed: Callable[[Item, str, bool], Sequence[Row]],
) -> Iterator[Sequence[Row]]:
    if where.ray is None:
        workers = where.workers or default_workers(bundle, record, asking)
        yield from answer_locally(asking, missing, min(workers, len(missing)), failed)
        return
    from storm_edge.batch.on_ray import answer_on_ray

    yield from answer_on_ray(
        asking, missing, where.ray, where.workers, size=bundle.config.vision.image_size, gpu=on_gpu(record)
    )


def engine_of(asking: Asking) -> tuple[Bundle, EngineRecord]:
    """The bundle, and the engine that will answer, whose files are checked here once for all workers."""
    bundle = Bundle.open(local_bundle(asking.bundle))
    record = choose_engine(bundle, asking.engine, probe().targets, asking.trust_engines)
    bundle.check_once(lambda _: None)
    check_engine_once(bundle, record, lambda _: None)
    return bundle, record


def default_workers(bundle: Bundle, record: EngineRecord, asking: Asking) -> int:
    """A process a core, as far as memory allows; one on a GPU."""
    if on_gpu(record):
        return 1
    where = target(record.target)
    options = default_options(where, asking.frames or 32)
    need = make_plan(bundle.config, where, None, options).peak + PROCESS_BYTES
    return max(1, min(len(os.sched_getaffinity(0)), int(0.8 * available_bytes() / need)))


def on_gpu(record: EngineRecord) -> bool:
    """Whether an engine computes on a GPU."""
    return any(RUNNERS[runner].device != "cpu" for runner in record.runners.values())


def about(asking: Asking, bundle: Bundle, record: EngineRecord) -> dict[str, object]:
    """What makes answers comparable: a folder of results holds those of one of these."""
    return {
        "bundle": bundle.sha256,
        "engine": record.name,
        "frames": asking.frames,
        "fps": asking.fps,
        "snap": asking.snap,
        "skip_still": asking.skip_still,
        "sample": asking.sample,
        "max_tokens": asking.max_tokens,
    }


def checked_workers(workers: int | None) -> int | None:
    """A number of workers as it was given; raises UsageError where it is none."""
    if workers is not None and not 1 <= workers <= MAX_WORKERS:
        raise UsageError(f"--workers is {workers}: give 1 to {MAX_WORKERS}.")
    return workers
