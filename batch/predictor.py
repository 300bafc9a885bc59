"""The class that answers: one loaded bundle, rows of videos and questions in, rows of answers out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from storm_edge.batch.bundles import local_bundle
from storm_edge.batch.decoding import Looking
from storm_edge.batch.fetch import UnreachableError
from storm_edge.batch.library import Item
from storm_edge.batch.rows import COLUMNS, STAGES, TOKENS, Row
from storm_edge.runtime.answer.answer import Answer
from storm_edge.runtime.answer.pipeline import Video, load
from storm_edge.runtime.errors import StormError
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.video import FrameBatch


@dataclass(frozen=True)
class Asking:
    """How a bundle is asked: the arguments of Predictor."""

    bundle: str
    engine: str | None = None
    frames: int | None = None
    fps: float | None = None
    snap: float | None = None
    skip_still: int = 0
    sample: int | None = None
    max_tokens: int = 256
    threads: int | None = None
    trust_engines: bool = False


class Predictor:
    """An engine of a bundle that answers batches of videos and questions, for Ray Data, Ray Serve or Triton.

    `bundle` is a path, or a URL that fsspec reads. `frames`, `fps`, `snap`, `skip_still` and `sample` choose what
    is looked at as `storm run` does. Raises BundleError, EngineError, UsageError.
    """

    def __init__(
        self,
        bundle: str,
        engine: str | None = None,
        *,
        frames: int | None = None,
        fps: float | None = None,
        snap: float | None = None,
        skip_still: int = 0,
        sample: int | None = None,
        max_tokens: int = 256,
        threads: int | None = None,
        trust_engines: bool = False,
    ):
        self.pipeline = load(local_bundle(bundle), engine, threads=threads, trust_engines=trust_engines)
        size = self.pipeline.bundle.config.vision.image_size
        self.looking = Looking(size, self.pipeline.stages.batch, frames, fps, snap)
        self._reduced: dict[str, Any] = {"sample": sample, "skip_still": skip_still}
        self._options = SamplingOptions(max_tokens=max_tokens)

    @classmethod
    def of(cls, asking: Asking) -> Predictor:
        """The same from a description."""
        return cls(**vars(asking))

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Answer `batch["question"][i]` about `batch["video"][i]`; returns the columns of `rows.COLUMNS`.

        Rows of one video that follow each other share its encoding. What goes wrong with a video is in `error`.
        """
        rows: list[Row] = []
        asked: list[tuple[str, list[str]]] = []
        for video, question in zip(batch["video"], batch["question"], strict=True):
            if not asked or asked[-1][0] != str(video):
                asked.append((str(video), []))
            asked[-1][1].append(str(question))
        for video, questions in asked:
            rows += self.answer(Item(video, video, tuple(questions)))
        columns = [row.columns() for row in rows]
        return {name: [row[name] for row in columns] for name in COLUMNS}

    def answer(self, item: Item, batches: Iterable[FrameBatch] | None = None) -> list[Row]:
        """A row for every question of a video, whose frames `batches` are, where they were decoded elsewhere."""
        try:
            batches = self.looking.read(item.location) if batches is None else batches
            video = self.pipeline.encode(batches, **self._reduced)
        except Exception as e:
            return [self.failed(item.video, question, *told(e)) for question in item.questions]
        rows: list[Row] = []
        for question in item.questions:
            try:
                answer = video.ask(question, self._options)
                answer.read()
                rows.append(self._row(item.video, question, video, answer, first=not rows))
            except Exception as e:
                rows.append(self.failed(item.video, question, *told(e)))
        return rows

    def failed(self, video: str, question: str, words: str, passing: bool) -> Row:
        """The row of a question that got no answer."""
        engine, bundle = self.pipeline.engine.name, self.pipeline.bundle.sha256
        return Row(video, question, engine, bundle, error=words, passing=passing)

    def _row(self, name: str, question: str, video: Video, answer: Answer, *, first: bool) -> Row:
        stats = answer.stats
        spent = {stage: stats.seconds[stage] if first or stage not in video.seconds else 0.0 for stage in STAGES}
        return Row(
            video=name,
            question=question,
            engine=self.pipeline.engine.name,
            bundle=self.pipeline.bundle.sha256,
            answer=answer.text,
            timestamps=tuple(video.timestamps.tolist()),
            tokens={kind: getattr(stats, f"{kind}_tokens") for kind in TOKENS},
            seconds=spent,
        )


def told(error: Exception) -> tuple[str, bool]:
    """An error in one line, and whether it may pass."""
    words = str(error) if isinstance(error, StormError) else f"{type(error).__name__}: {error}"
    passing = isinstance(error, UnreachableError) or not isinstance(error, StormError)
    return " ".join(words.split())[:2000], passing
