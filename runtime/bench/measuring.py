"""Running whole questions, by turns where several answer: the same clip, the same frames, the same tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from storm_edge.runtime.answer.pipeline import Pipeline, Video
from storm_edge.runtime.llm.prompt import Message
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.machine.energy import Meter
from storm_edge.runtime.machine.memory import peak_device_bytes, peak_memory_bytes, reset_peak_memory
from storm_edge.runtime.video.reading import VideoSource

STAGES = ("video decode", "vision", "temporal", "prefill")  # before the first token, in their order
FIRST, SECOND = "What happens in this video?", "Which way does the square move?"


@dataclass(frozen=True)
class Run:
    """One question about a clip. `seconds` is by STAGES; `tokens` are those of every token but the first, and `again`
    what a second question about the same clip takes to its first token.
    """

    seconds: dict[str, float]
    first_token: float
    total: float
    tokens: list[float]
    again: float
    visual_tokens: int
    prompt_tokens: int
    peak_memory_bytes: int
    peak_device_bytes: int = 0


@dataclass
class Runs:
    """All runs of one that answers. `warm_up` is the seconds of the first, which is not among them; `joules` are those
    of a run on average, None where nothing measures them.
    """

    warm_up: float = 0.0
    runs: list[Run] = field(default_factory=list)
    joules: float | None = None


Ask = Callable[[int], Run]  # frames -> what a question about so many took


def ask_engine(pipeline: Pipeline, source: VideoSource, tokens: int, frames: int, sample: int | None = None) -> Run:
    """Open a clip, ask about it, and ask once more; every answer goes on to `tokens`, whatever the model says.

    Raises UsageError where that does not fit, VideoError, EngineError.
    """
    reset_peak_memory()
    start = time.perf_counter()
    video = pipeline.open(source, frames=frames, sample=sample)
    opened = time.perf_counter()
    prefill, each, prompt = _answer(pipeline, video, FIRST, tokens)
    total = time.perf_counter() - start
    again, _, _ = _answer(pipeline, video, SECOND, 1)
    pipeline.stages.device.watch_memory()
    return Run(
        seconds=video.seconds | {"prefill": prefill},
        first_token=opened - start + prefill,
        total=total,
        tokens=each,
        again=again,
        visual_tokens=len(video.rows),
        prompt_tokens=prompt,
        peak_memory_bytes=peak_memory_bytes(),
        peak_device_bytes=peak_device_bytes(),
    )


def _answer(pipeline: Pipeline, video: Video, question: str, tokens: int) -> tuple[float, list[float], int]:
    """Seconds to the first token and of each after it, and the tokens of the prompt."""
    with pipeline.turns.held():
        start = time.perf_counter()
        ids = pipeline.prompt.render([Message("user", question, video=True)])
        prompt = SplicedPrompt(ids.before, video.rows, ids.after, video.serial)
        stream = pipeline.stages.generator.start(prompt, SamplingOptions(max_tokens=tokens), ends=())
        next(stream)  # a GPU's work is waited for here
        first = time.perf_counter() - start
        each = []
        begun = time.perf_counter()
        for _ in stream:
            now = time.perf_counter()
            each.append(now - begun)
            begun = now
    return first, each, len(prompt.keys)


def measure(
    asked: dict[str, Ask],
    frames: int,
    repeats: int,
    meter: Meter | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Runs]:
    """A first run of each, apart, then `repeats` rounds in which all take turns; `meter` counts where one answers."""
    found = {name: Runs() for name in asked}
    begun = 0.0
    for round_ in range(repeats + 1):
        for name, ask in asked.items():
            progress(f"{name}, {frames} frames, {f'run {round_} of {repeats}' if round_ else 'warm-up'}")
            run = ask(frames)
            if round_:
                found[name].runs.append(run)
            else:
                found[name].warm_up = run.total
        if not round_ and meter is not None:
            begun = meter.joules()
    if meter is not None and len(found) == 1:
        only = next(iter(found.values()))
        only.joules = (meter.joules() - begun) / repeats
    return found
