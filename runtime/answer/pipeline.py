"""From a bundle to answers: `load`, `Pipeline.open`, `Video.ask` and `Video.chat`.

A pipeline and its videos serve one caller at a time (see `conversation`); `worker` makes another on the same weights.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.answer.answer import Answer, AnswerStats
from storm_edge.runtime.answer.budget import Budget
from storm_edge.runtime.answer.conversation import Conversation, Turns
from storm_edge.runtime.answer.encoding import EncodedFrames, encode_frames
from storm_edge.runtime.answer.source import OpenedSource, open_source
from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.answer.still import StillFrames
from storm_edge.runtime.bundle.engine import EngineRecord, check_engine_once
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.trust import choose_engine
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.llm.generate import Generation
from storm_edge.runtime.llm.newline import newline_of_model
from storm_edge.runtime.llm.prompt import ChatPrompt, Message
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.llm.times import with_times
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.sessions.device import Stopwatch, Tensor
from storm_edge.runtime.video import FrameBatch
from storm_edge.runtime.video.reading import MAX_FRAMES, VideoSource, whole_number

if TYPE_CHECKING:
    from storm_edge.runtime.answer.watch import Watch
    from storm_edge.runtime.video.live import WatchedSource

DEFAULT_FRAMES = 32  # what the paper's model was trained with first


class Pipeline:
    """A loaded engine. Make one with `load`.

    `times` says whether questions are preceded by the moments of the clip's frames, see `runtime.llm.times`: as the
    model's config.json has it, unless it is set.
    """

    def __init__(self, bundle: Bundle, record: EngineRecord, stages: Stages, prompt: ChatPrompt):
        self.bundle, self.engine, self.stages, self.prompt = bundle, record, stages, prompt
        self.times = bundle.config.prompt.times
        self._serials = itertools.count(1)
        self.turns = Turns()

    def worker(self) -> Pipeline:
        """Another pipeline on the same weights, with a sequence and a key-value cache of its own, for another thread.

        Videos belong to the pipeline that opened them. Raises EngineError where the engine cannot share its weights.
        """
        other = Pipeline(self.bundle, self.engine, self.stages.worker(), self.prompt)
        other.times = self.times
        other._serials = self._serials  # no two videos of the same weights have one number
        return other

    def open(
        self,
        source: VideoSource,
        *,
        frames: int | None = None,
        fps: float | None = None,
        sample: int | None = None,
        snap: float | None = None,
        skip_still: int = 0,
        decoder: str = "pyav",
        timestamps: npt.ArrayLike | None = None,
    ) -> Video:
        """Decode and encode a video once, for any number of questions.

        `source` is a local file, a folder of images, an iterable of (seconds, frame), or an array (T, H, W, 3) that
        speaks DLPack, which stays where it is if that is the GPU: see `read_frames`. `frames` or `fps` choose what is
        looked at (without either at most 32 frames, spread evenly); `sample` keeps every s-th pooled frame; `snap` lets
        frames move to a keyframe so many seconds away. A frame that differs from the one before it in no pixel by more
        than `skip_still` of 255 takes its tokens. `decoder` is "pyav", or "nvdec" for a file that the GPU decodes.
        Raises UsageError, VideoError, EngineError.
        """
        by_default = frames is None and fps is None
        if by_default:
            frames = DEFAULT_FRAMES
        with self.turns.held():
            sample = self._sampling(sample)
            budget = Budget.of(self.bundle.config, self.stages, sample)
            if frames is not None:
                budget.check(frames)
            opened = open_source(
                source,
                self.stages.vision_session,
                size=self.bundle.config.vision.image_size,
                frames=frames,
                fps=fps,
                timestamps=timestamps,
                snap=snap,
                skip_still=skip_still,
                decoder=decoder,
                repeats=not by_default,
            )
            return self._encode(opened, frames, budget)

    def encode(
        self,
        batches: Iterable[FrameBatch],
        *,
        frames: int | None = None,
        sample: int | None = None,
        skip_still: int = 0,
    ) -> Video:
        """The same of frames that were chosen and brought to the model's size elsewhere, see `read_frames`.

        `frames` is how many will come, as far as that is known. Raises UsageError, VideoError, EngineError.
        """
        with self.turns.held():
            budget = Budget.of(self.bundle.config, self.stages, self._sampling(sample))
            if frames is not None:
                budget.check(frames)
            opened = OpenedSource(iter(batches), StillFrames(skip_still), beside=False)
            return self._encode(opened, frames, budget)

    def _encode(self, opened: OpenedSource, frames: int | None, budget: Budget) -> Video:
        encoded = encode_frames(self.stages, opened, frames=frames, check=budget.check_growing)
        budget.check(encoded.tokens.count)
        return self._video(encoded, budget.sample)

    def _video(self, encoded: EncodedFrames, sample: int) -> Video:
        stages = self.stages
        with Stopwatch(stages.temporal_encoder.device) as in_temporal:
            visual = stages.temporal_of(encoded.tokens)  # (1, T / k, N / p, D)
        rows = stages.rows(visual[:, ::sample], newline_of_model(self.bundle.config, self.prompt))
        # A GPU is waited for here, so that it has read the last frame while the next was decoded.
        seconds = {"vision": encoded.vision.seconds(), "temporal": in_temporal.seconds()}
        seconds = {"video decode": encoded.waited} | seconds
        return Video(self, next(self._serials), rows, encoded.timestamps, seconds, encoded.reused)

    def watch(
        self,
        source: WatchedSource,
        *,
        fps: float = 2,
        window: int = 64,
        sample: int | None = None,
        follow: bool = False,
        pictures: bool = False,
    ) -> Watch:
        """Follow a live video, and answer about its last `window` frames at any moment; close it at the end.

        `source`: see docs/live.md; with `follow` a file that grows. Pairs of (seconds, frame) are read by a thread. At
        most `fps` frames a second are looked at; moments have their `pictures`. Raises UsageError, VideoError.
        """
        from storm_edge.runtime.answer.watch import watch_source  # here, because whoever opens clips needs none of it

        window = whole_number("window", window, MAX_FRAMES)
        (budget := Budget.of(self.bundle.config, self.stages, self._sampling(sample))).check(window)

        def open_clip(encoded: EncodedFrames) -> Video:
            with self.turns.held():
                return self._video(encoded, budget.sample)

        size = self.bundle.config.vision.image_size
        return watch_source(source, size, self.stages, window, open_clip, fps=fps, follow=follow, pictures=pictures)

    def _sampling(self, sample: int | None) -> int:
        if sample is not None and sample < 1:
            raise UsageError(f"sample is {sample}: give 1 to keep every pooled frame, or more.")
        return sample or self.bundle.config.reduction.sample

    def answer(self, video: Video, messages: list[Message], options: SamplingOptions) -> Answer:
        """Start answering a conversation about a video; the tokens are computed while the answer is iterated.

        To be called by who holds the pipeline. The video is of a pipeline on the same weights.
        """
        start = time.perf_counter()
        ids = self.prompt.render(with_times(messages, video.timestamps.tolist()) if self.times else messages)
        prompt = SplicedPrompt(ids.before, video.rows, ids.after, video.serial, continues=len(messages) > 1)
        tokens = self.stages.generator.start(prompt, options, self.prompt.eos_ids)
        stats = AnswerStats(
            frames=len(video.timestamps),
            reused_frames=video.reused_frames,
            visual_tokens=len(video.rows),
            prompt_tokens=len(prompt.keys),
            reused_tokens=tokens.reused,
            answer_tokens=0,
            finish="unfinished",
            seconds=video.seconds | {"prefill": time.perf_counter() - start},
            peak_memory_bytes=0,
        )
        generation = Generation(tokens, self.prompt.stream(), options.stop)
        return Answer(generation, stats, self.turns, self.stages.device)


class Video:
    """An encoded video: ask about it, or chat. `timestamps` (T,) are the seconds that were looked at;
    `reused_frames` of them showed nothing new.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        serial: int,
        rows: Tensor,
        timestamps: npt.NDArray[np.float64],
        seconds: dict[str, float],
        reused: int,
    ):
        self._pipeline, self.serial, self.rows = pipeline, serial, rows
        self.timestamps, self.seconds, self.reused_frames = timestamps, seconds, reused
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
    with ThreadPoolExecutor(max_workers=1) as beside:
        prompt = beside.submit(ChatPrompt.read, bundle.texts(folder := bundle.manifest.tokenizer), bundle.root / folder)
        return Pipeline(bundle, record, Stages.load(bundle, record, threads=threads), prompt.result())
