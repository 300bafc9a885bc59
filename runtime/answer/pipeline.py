"""From a bundle to answers: `load`, `Pipeline.open`, `Video.ask` and `Video.chat`.

A pipeline and its videos serve one caller at a time (see `conversation`); `worker` makes another on the same weights.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.answer.conversation import Conversation, Turns
from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.engine import EngineRecord, check_engine_once
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.trust import choose_engine
from storm_edge.runtime.errors import UsageError, VideoError
from storm_edge.runtime.llm.generate import Generation
from storm_edge.runtime.llm.newline import newline_of_model
from storm_edge.runtime.llm.prompt import ChatPrompt, Message
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.machine.memory import peak_device_bytes, peak_memory_bytes
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.sessions.device import Stopwatch, Tensor
from storm_edge.runtime.video import FrameBatch, read_frames
from storm_edge.runtime.video.reading import VideoSource

DEFAULT_FRAMES = 32  # what the paper's model was trained with first


@dataclass(frozen=True)
class AnswerStats:
    """What an answer took. `seconds` is by stage; those of the video were spent once, when it was opened."""

    frames: int
    visual_tokens: int
    prompt_tokens: int
    reused_tokens: int
    answer_tokens: int
    finish: str
    seconds: dict[str, float]
    peak_memory_bytes: int
    peak_device_bytes: int = 0  # of a GPU, since it was opened; 0 without one


class Answer:
    """A streaming answer: iterate for its pieces; `text` and `stats` are complete when the iteration is.

    Raises UsageError where another question was asked on the pipeline before this answer's end was computed, or where
    the pipeline computes for another caller at that moment.
    """

    def __init__(self, generation: Generation, stats: AnswerStats, pipeline: Pipeline):
        self._generation, self._begun, self._pipeline = generation, stats, pipeline
        self._decode_seconds = 0.0
        self.text = ""

    def __iter__(self) -> Iterator[str]:
        while True:
            with self._pipeline.turns.held():
                start = time.perf_counter()
                piece = next(self._generation, None)
                self._decode_seconds += time.perf_counter() - start
                if piece is None:
                    return
                self.text += piece
            yield piece

    def read(self) -> str:
        """The whole rest of the answer at once; returns all of `text`."""
        for _ in self:
            pass
        return self.text

    @property
    def stats(self) -> AnswerStats:
        """Token counts, seconds by stage and peak memory so far."""
        self._pipeline.stages.device.watch_memory()
        return AnswerStats(
            **vars(self._begun)
            | {
                "answer_tokens": len(self._generation.ids),
                "finish": self._generation.finish or "unfinished",
                "seconds": self._begun.seconds | {"decode": self._decode_seconds},
                "peak_memory_bytes": peak_memory_bytes(),
                "peak_device_bytes": peak_device_bytes(),
            }
        )


class Pipeline:
    """A loaded engine. Make one with `load`."""

    def __init__(self, bundle: Bundle, record: EngineRecord, stages: Stages, prompt: ChatPrompt):
        self.bundle, self.engine, self.stages, self.prompt = bundle, record, stages, prompt
        self._serials = itertools.count(1)
        self.turns = Turns()

    def worker(self) -> Pipeline:
        """Another pipeline on the same weights, with a sequence and a key-value cache of its own, for another thread.

        Videos belong to the pipeline that opened them. Raises EngineError where the engine cannot share its weights.
        """
        return Pipeline(self.bundle, self.engine, self.stages.worker(), self.prompt)

    def open(
        self,
        source: VideoSource,
        *,
        frames: int | None = None,
        fps: float | None = None,
        sample: int | None = None,
        timestamps: npt.ArrayLike | None = None,
    ) -> Video:
        """Decode and encode a video once, for any number of questions.

        `source` is a local file, a folder of images, a uint8 array (T, H, W, 3), or an iterable of (seconds, frame):
        see `read_frames`. `frames` or `fps` choose what is looked at (without either at most 32 frames, spread evenly);
        `sample` keeps every s-th pooled frame.
        Raises UsageError, VideoError, EngineError.
        """
        with self.turns.held():
            return self._open(source, frames, fps, sample, timestamps)

    def _open(
        self,
        source: VideoSource,
        frames: int | None,
        fps: float | None,
        sample: int | None,
        timestamps: npt.ArrayLike | None,
    ) -> Video:
        config = self.bundle.config
        if sample is not None and sample < 1:
            raise UsageError(f"sample is {sample}: give 1 to keep every pooled frame, or more.")
        sample = sample or config.reduction.sample
        by_default = frames is None and fps is None
        if by_default:
            frames = DEFAULT_FRAMES
        if frames is not None:
            self._check_budget(frames, sample)
        seconds, stages = {"video decode": 0.0}, self.stages
        batches = read_frames(
            source, size=config.vision.image_size, frames=frames, fps=fps, batch=stages.batch, timestamps=timestamps
        )
        tokens, times, in_vision = stages.tokens(frames), [], Stopwatch(stages.vision_session.device)
        start = time.perf_counter()
        for batch in _without_repeats(batches) if by_default else batches:
            seconds["video decode"] += time.perf_counter() - start
            self._check_budget(tokens.count + len(batch.frames), sample)
            with in_vision:
                tokens.add(stages.vision(batch.frames))  # (n, N, D)
            times.append(batch.timestamps)
            start = time.perf_counter()
        if not times:
            raise VideoError("the video has no frames: give one with at least one.")
        with Stopwatch(stages.temporal_encoder.device) as in_temporal:
            visual = stages.temporal(tokens.whole_groups(), overwrite=True)[:, ::sample]  # (1, kept, N / p, D)
        rows = stages.rows(visual, newline_of_model(config, self.prompt))
        # A GPU is waited for here, so that it has read the last frame while the next was decoded.
        seconds |= {"vision": in_vision.seconds(), "temporal": in_temporal.seconds()}
        return Video(self, next(self._serials), rows, np.concatenate(times), seconds)

    def _check_budget(self, frames: int, sample: int) -> None:
        config, capacity = self.bundle.config, self.stages.generator.capacity
        needed = config.visual_tokens(frames, sample)
        if needed >= capacity:
            raise UsageError(
                f"{frames} frames make {needed} visual tokens, the language model holds {capacity} with question and"
                " answer: take fewer frames, or add temporal sampling (sample=2 halves the tokens)."
            )

    def answer(self, video: Video, messages: list[Message], options: SamplingOptions) -> Answer:
        """Start answering a conversation about a video; the tokens are computed while the answer is iterated.

        To be called by who holds the pipeline.
        """
        start = time.perf_counter()
        ids = self.prompt.render(messages)
        prompt = SplicedPrompt(ids.before, video.rows, ids.after, video.serial, continues=len(messages) > 1)
        tokens = self.stages.generator.start(prompt, options, self.prompt.eos_ids)
        stats = AnswerStats(
            frames=len(video.timestamps),
            visual_tokens=len(video.rows),
            prompt_tokens=len(prompt.keys),
            reused_tokens=tokens.reused,
            answer_tokens=0,
            finish="unfinished",
            seconds=video.seconds | {"prefill": time.perf_counter() - start},
            peak_memory_bytes=0,
        )
        return Answer(Generation(tokens, self.prompt.stream(), options.stop), stats, self)


def _without_repeats(batches: Iterator[FrameBatch]) -> Iterator[FrameBatch]:
    """Leave out frames shown again, so that an image is one frame and a short clip is as long as it is."""
    last = -np.inf
    for batch in batches:
        new = np.diff(batch.timestamps, prepend=last) > 0
        last = batch.timestamps[-1]
        if new.any():
            yield FrameBatch(batch.frames[new], batch.timestamps[new])


class Video:
    """An encoded video: ask about it, or chat. `timestamps` (T,) are the seconds that were looked at."""

    def __init__(
        self,
        pipeline: Pipeline,
        serial: int,
        rows: Tensor,
        timestamps: npt.NDArray[np.float64],
        seconds: dict[str, float],
    ):
        self._pipeline, self.serial, self.rows = pipeline, serial, rows
        self.timestamps, self.seconds = timestamps, seconds
        self._conversation = Conversation()

    def ask(self, question: str, options: SamplingOptions | None = None) -> Answer:
        """Ask one question by itself; raises UsageError where it does not fit."""
        with self._pipeline.turns.held():
            return self._pipeline.answer(self, [Message("user", question, video=True)], options or SamplingOptions())

    def chat(self, text: str, options: SamplingOptions | None = None) -> Answer:
        """Continue the conversation of earlier `chat` calls with what was read of their answers."""
        with self._pipeline.turns.held():
            answer = self._pipeline.answer(self, self._conversation.asking(text), options or SamplingOptions())
            self._conversation.add(text, answer)
            return answer


def load(
    path: str | Path,
    engine: str | None = None,
    *,
    threads: int | None = None,
    check: bool = True,
    trust_engines: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Pipeline:
    """Load a bundle's engine: the named one, or the newest verified one for this machine; see `Pipeline.engine`.

    With `check`, every file that was not read on this machine as it is now is hashed, and `progress` told its name.
    Engines that somebody else built, or another machine, are loaded with `trust_engines` only.
    Raises BundleError, EngineError, or UsageError for an unknown name.
    """
    bundle = Bundle.open(path)
    record = choose_engine(bundle, engine, probe().targets, trust_engines)
    if check:
        bundle.check_once(progress)
        check_engine_once(bundle, record, progress)
    prompt = ChatPrompt.read(bundle.texts(bundle.manifest.tokenizer), bundle.root / bundle.manifest.tokenizer)
    return Pipeline(bundle, record, Stages.load(bundle, record, threads=threads), prompt)
