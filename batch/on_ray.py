"""The same on a Ray cluster: Ray Data decodes in tasks and answers in actors, each stage scaled by itself."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import ray

from storm_edge.batch.decoding import Looking
from storm_edge.batch.library import Item
from storm_edge.batch.predictor import Asking, Predictor, told
from storm_edge.batch.rows import Row
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.video import FrameBatch

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
AT_ONCE = 4  # videos that a task decodes, or an actor answers about, before it hands them on
_PATIENCE = 10.0  # seconds
_BATCH = 8  # frames that are resized together
_DECODER_CPUS = 0.5  # unlike an actor's, else Ray makes one operator of both, which cannot scale apart
Columns = dict[str, Any]


def answer_on_ray(
    asking: Asking, items: Sequence[Item], address: str, most: int | None, *, size: int, gpu: bool
) -> Iterator[Sequence[Row]]:
    """The rows of each item as they come, from frames of `size` pixels a side.

    `address` is a cluster's, or "auto": the one that runs, else one that is begun here. At most `most` actors answer
    (None: as the cluster's CPUs, or GPUs, allow). What a lost node or process had is done again elsewhere. Raises
    UsageError where no cluster answers.
    """
    ours = not ray.is_initialized()
    if ours:
        join(address)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        resources = ray.cluster_resources()
        cores = int(resources.get("CPU", 1))
        actors = int(resources.get("GPU", 0)) if gpu else cores - 1  # a core is left to decoding
        actors = max(1, min(actors, most or actors))
        looking = Looking(size, _BATCH, asking.frames, asking.fps, asking.snap)
        rows = [{"video": i.video, "location": i.location, "questions": json.dumps(i.questions)} for i in items]
        blocks = min(len(rows), max(2 * cores, -(-len(rows) // 64)))
        answered = (
            ray.data.from_items(rows, override_num_blocks=blocks)
            .map_batches(partial(_decode, looking=looking), batch_size=AT_ONCE, num_cpus=_DECODER_CPUS)
            .map_batches(
                _answerer(asking),
                batch_size=AT_ONCE,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
                num_gpus=1 if gpu else None,
                num_cpus=None if gpu else asking.threads or 1,
            )
        )
        for row in answered.iter_rows():
            yield [Row(**held) for held in json.loads(row["rows"])]
    finally:
        if ours:
            ray.shutdown()


def join(address: str) -> None:
    """Connect to a cluster; raises UsageError where there is none."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address != "auto":
        _find(address)
        ray.init(address=address, **quiet)
        return
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        ray.init(**quiet)


def _find(address: str) -> None:
    """See that something listens: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError, OverflowError) as e:
        raise UsageError(f"no Ray cluster answers at {address} ({e}): give HOST:PORT of its head node, or auto.") from e


def _decode(batch: Columns, looking: Looking) -> Columns:
    """The frames of videos, or why there are none, beside what is asked about them."""
    frames, times, failed, seconds = [], [], [], []
    for location in batch["location"]:
        start, held, error = time.perf_counter(), list[FrameBatch](), None
        try:
            held = list(looking.read(str(location)))
        except Exception as e:
            error = e
        seconds.append(time.perf_counter() - start)
        failed.append(json.dumps(None if error is None else told(error)))
        frames.append(np.concatenate([b.frames for b in held]) if held else np.zeros((0, 1, 1, 3), np.uint8))
        times.append(np.concatenate([b.timestamps for b in held]) if held else np.zeros(0))
    return {"video": batch["video"], "questions": batch["questions"], "failed": np.array(failed, object)} | {
        "frames": _ragged_array(frames),
        "times": _ragged_array(times),
        "seconds": np.array(seconds),
    }


class _Answerer:
    """A Predictor in an actor, for what `_decode` gives."""

    def __init__(self, asking: Asking):
        self._predictor = Predictor.of(asking)

    def __call__(self, batch: Columns) -> Columns:
        rows = [
            self._answer(Item(str(video), "", tuple(json.loads(str(questions)))), frames, times, failed, seconds)
            for video, questions, frames, times, failed, seconds in zip(
                *(batch[name] for name in ("video", "questions", "frames", "times", "failed", "seconds")), strict=True
            )
        ]
        return {"rows": np.array([json.dumps([asdict(row) for row in of_video]) for of_video in rows], object)}

    def _answer(self, item: Item, frames: Any, times: Any, failed: str, seconds: float) -> list[Row]:
        if (error := json.loads(failed)) is not None:
            return [self._predictor.failed(item.video, question, *error) for question in item.questions]
        size = self._predictor.looking.batch
        parts = [slice(i, i + size) for i in range(0, len(frames), size)]
        rows = self._predictor.answer(item, [FrameBatch(frames[part], times[part]) for part in parts])
        return [row.decoded_in(float(seconds)) for row in rows[:1]] + rows[1:]


def _answerer(asking: Asking) -> type[Any]:
    """The class with its argument: one that lies in the object store is lost with its node."""

    class Answerer(_Answerer):
        def __init__(self) -> None:
            super().__init__(asking)

    return Answerer


def _ragged_array(arrays: list[Any]) -> Any:
    """Arrays of different lengths as the elements of one."""
    held = np.empty(len(arrays), object)
    held[:] = arrays
    return held
