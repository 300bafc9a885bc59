"""Who is answered when: videos are decoded and encoded in one thread while the language model answers in another.

Questions about cached videos go to the language model's line at once, others first to the encoder's. In both lines
everybody gets a turn. The encoder goes at most `AHEAD` videos ahead of the language model.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import closing

from storm_edge.runtime.answer.answer import AnswerStats
from storm_edge.runtime.answer.pipeline import Pipeline
from storm_edge.runtime.errors import VideoError
from storm_edge.server.decode_job import DecodeJob
from storm_edge.server.decoder import Decoder
from storm_edge.server.engine import Engine
from storm_edge.server.errors import RequestError
from storm_edge.server.fair_queue import FairQueue
from storm_edge.server.jobs import Begun, Ended, Event, Failed, Job, Piece
from storm_edge.server.metrics import Metrics
from storm_edge.server.settings import Settings
from storm_edge.server.streams import LiveClip
from storm_edge.server.video_cache import EncodedVideo, VideoCache

AHEAD = 2


class Scheduler:
    """Takes questions from any thread. `start` before the first, `close` after the last."""

    def __init__(self, engine: Engine, decoder: Decoder, settings: Settings, metrics: Metrics) -> None:
        self.engine, self.cache = engine, VideoCache(settings.cache)
        self._decoder, self._settings, self._metrics = decoder, settings, metrics
        self._to_encode: FairQueue[Job] = FairQueue()
        self._to_answer: FairQueue[Job] = FairQueue()
        self._ahead = threading.Semaphore(AHEAD)
        self._lock = threading.Lock()
        self._jobs: set[Job] = set()
        self._most = settings.queue + len(engine.answering)
        self._seconds = 1.0  # that an answer takes, about
        self._refusing = False
        self._threads = [threading.Thread(target=self._encode_all, name="storm-encode", daemon=True)]
        self._threads += [
            threading.Thread(target=self._answer_all, args=(pipeline,), name="storm-answer", daemon=True)
            for pipeline in engine.answering
        ]

    def start(self) -> None:
        """Start the threads, and the process that decodes."""
        self._decoder.start()
        for thread in self._threads:
            thread.start()

    @property
    def count(self) -> int:
        """Questions that were taken and are not answered yet."""
        with self._lock:
            return len(self._jobs)

    @property
    def refusing(self) -> bool:
        """Whether no more questions are taken."""
        return self._refusing

    def check(self) -> None:
        """Raises RequestError where a question would not be taken now."""
        with self._lock:
            self._check()

    def submit(self, job: Job) -> None:
        """Take a question; raises RequestError where the line is full or the server is about to end."""
        with self._lock:
            self._check()
            self._jobs.add(job)
        job.encoded = self.cache.get(job.key)
        if job.encoded is None:
            job.cached = False
            self._to_encode.put(job.whose, job)
        else:
            self._to_answer.put(job.whose, job)

    def cancel(self, job: Job, error: RequestError) -> None:
        """End a question that nobody waits for any more: at once where it is in line, else before its next token."""
        job.cancel(error)
        if self._to_encode.remove(job.whose, job) or self._to_answer.remove(job.whose, job):
            job.release()
            self._end(job, Failed(error))

    def refuse(self) -> None:
        """Take no more questions."""
        self._refusing = True

    def close(self) -> None:
        """End every answer before its next token, and the threads after what they compute at the moment."""
        self.refuse()
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            self.cancel(job, _ending())
        self._to_encode.close()
        self._to_answer.close()
        self._ahead.release()  # for the encoder's thread, should it wait for a place
        self._decoder.close()
        for thread in self._threads:
            thread.join(1)

    def _check(self) -> None:
        if self._refusing:
            raise _ending()
        if len(self._jobs) >= self._most:
            wait = math.ceil(len(self._jobs) * self._seconds / len(self.engine.answering))
            self._metrics.refused.inc()
            raise RequestError(
                429,
                f"{len(self._jobs)} questions are answered or wait, and no more may: try again in {wait} s.",
                "queue_full",
                headers={"Retry-After": str(wait)},
            )

    def _end(self, job: Job, event: Event) -> None:
        with self._lock:
            self._jobs.discard(job)
        job.source.close()
        job.tell(event)

    def _encode_all(self) -> None:
        while True:
            self._ahead.acquire()
            job = self._to_encode.get()
            if job is None:
                return
            try:
                job.check()
                job.encoded = self.cache.get(job.key)
                job.cached = job.encoded is not None
                job.encoded = job.encoded or self._encode(job)
            except Exception as e:
                self._ahead.release()
                self._end(job, Failed(_reason(job, e)))
                continue
            job.release = self._ahead.release
            self._to_answer.put(job.whose, job)

    def _encode(self, job: Job) -> EncodedVideo:
        """Decode in a child, and run vision and temporal encoder on what comes; of a live video, the latter alone."""
        if isinstance(job.source, LiveClip):
            return job.source.encoded()
        encoder, settings = self.engine.encoder, self._settings
        pictures: list[bytes] = []
        decode = DecodeJob(
            size=encoder.bundle.config.vision.image_size,
            batch=encoder.stages.batch,
            limit=settings.max_frames,
            seconds=max(1, math.ceil(min(settings.decode_timeout, job.deadline - time.monotonic()))),
            memory=settings.decode_memory,
            sampling=job.key.sampling,
            images=job.source.images,
        )
        with closing(self._decoder.frames(decode, job.source.file.fileno(), pictures, job.on_cancel)) as frames:
            video = self.engine.encode(frames, job.key.sampling.sample)
        if not job.source.unchanged():
            raise VideoError("the video was written to while it was read: ask again.")
        encoded = EncodedVideo(video, tuple(pictures))
        self._metrics.evicted.inc(self.cache.put(job.key, encoded))
        for stage, seconds in video.seconds.items():
            self._metrics.stages.labels(stage).observe(seconds)
        return encoded

    def _answer_all(self, pipeline: Pipeline) -> None:
        while (job := self._to_answer.get()) is not None:
            job.release()
            start = time.monotonic()
            try:
                event: Event = Ended(self._answer(job, pipeline))
                self._seconds += 0.2 * (time.monotonic() - start - self._seconds)
            except Exception as e:
                event = Failed(_reason(job, e))
            self._end(job, event)

    def _answer(self, job: Job, pipeline: Pipeline) -> AnswerStats:
        assert job.encoded is not None
        job.check()
        encoding = 0.0 if job.cached else sum(job.encoded.video.seconds.values())
        waited = max(time.monotonic() - job.arrived - encoding, 0.0)
        answer = self.engine.begin(pipeline, job.encoded.video, job.messages, job.options)
        job.on_cancel(answer.cancel)
        pieces, begun = iter(answer), False
        while True:
            job.check()
            piece = self.engine.next(pieces)
            job.check()
            if not begun:
                begun = True
                job.tell(Begun(job.encoded, job.cached, waited, answer.stats))
                self._metrics.first_token.observe(time.monotonic() - job.arrived)
            if piece is None:
                break
            job.tell(Piece(piece))
        self._metrics.answered(answer.stats, job.cached, time.monotonic() - job.arrived)
        return answer.stats


def _reason(job: Job, error: Exception) -> Exception:
    """Why a job failed: because it was cancelled, if it was, whatever that made of it."""
    try:
        job.check()
    except RequestError as e:
        return e
    return error


def _ending() -> RequestError:
    return RequestError(503, "this server is about to end.", "shutting_down", headers={"Retry-After": "5"})
