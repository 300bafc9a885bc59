from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from storm_edge.runtime import SamplingOptions, load
from storm_edge.runtime.answer.pipeline import Pipeline, Video
from storm_edge.runtime.errors import EngineError, UsageError, VideoError
from storm_edge.runtime.llm.prompt import Message
from storm_edge.runtime.llm.stepwise import StepwiseGenerator
from storm_edge.runtime.llm.times import time_instruction
from storm_edge.runtime.proof.divergence import logit_divergence
from storm_edge.runtime.proof.evaluate import Item, evaluate
from storm_edge.runtime.video import read_frames
from storm_edge.runtime.video.encode import encode_video
from storm_edge.runtime.video.resizing import Resizer

SHORT = SamplingOptions(max_tokens=6)


@pytest.fixture(scope="module")
def pipeline(bundle: Path) -> Pipeline:
    return load(bundle)


def frames(count: int, seed: int = 0, size: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def held(pipeline: Pipeline) -> list[int]:
    generator = pipeline.stages.generator
    assert isinstance(generator, StepwiseGenerator)
    return generator.held


def fresh_answer(bundle: Path, clip: NDArray[np.uint8], question: str) -> tuple[str, list[int]]:
    answer = load(bundle).open(clip).ask(question, SHORT)
    return answer.read(), answer._generation.ids


def test_loading_says_which_engine_was_chosen(pipeline: Pipeline) -> None:
    assert pipeline.engine.name == "cpu-fp32"


def test_an_unknown_engine_is_refused_with_those_that_exist(bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"no engine 'orin-fp8' \(it has: cpu-fp32\)"):
        load(bundle, "orin-fp8")


def test_a_second_question_reuses_the_visual_prefix_and_answers_as_a_fresh_pipeline_does(
    pipeline: Pipeline, bundle: Path
) -> None:
    clip = frames(8)
    video = pipeline.open(clip)
    video.ask("What is this?", SHORT).read()
    second = video.ask("Which way does it move?", SHORT)
    text = second.read()
    assert second.stats.reused_tokens > second.stats.visual_tokens == 32
    assert video.ask("What is this?", SHORT).stats.reused_tokens == second.stats.reused_tokens
    assert (text, second._generation.ids) == fresh_answer(bundle, clip, "Which way does it move?")


def test_two_videos_take_turns_without_seeing_each_other(pipeline: Pipeline, bundle: Path) -> None:
    one, two = frames(8, 1), frames(8, 2)
    videos = pipeline.open(one), pipeline.open(two)
    for video, clip in zip((*videos, *videos), (one, two, one, two), strict=True):
        answer = video.ask("What happens?", SHORT)
        assert (answer.read(), answer._generation.ids) == fresh_answer(bundle, clip, "What happens?")


def test_a_chat_continues_the_conversation(pipeline: Pipeline) -> None:
    video = pipeline.open(frames(8, 3))
    first = video.chat("What is this?", SHORT)
    first.read()
    second = video.chat("And then?", SHORT)
    second.read()
    assert second.stats.prompt_tokens > first.stats.prompt_tokens
    assert second.stats.reused_tokens >= first.stats.prompt_tokens - 1
    written = pipeline.prompt.decode(key for key in held(pipeline) if key >= 0)
    assert all(part in written for part in ("What is this?", first.text.strip(), "And then?"))


def test_an_answer_that_is_not_read_to_its_end_does_not_spoil_the_next(pipeline: Pipeline, bundle: Path) -> None:
    clip = frames(8, 4)
    video = pipeline.open(clip)
    next(iter(video.ask("What is this?", SHORT)))
    answer = video.ask("Which way?", SHORT)
    assert (answer.read(), answer._generation.ids) == fresh_answer(bundle, clip, "Which way?")


def test_a_length_that_is_no_multiple_of_k_repeats_the_last_frame(pipeline: Pipeline) -> None:
    clip = frames(6)
    padded = np.concatenate([clip, clip[-1:], clip[-1:]])
    video = pipeline.open(clip)
    assert len(video.timestamps) == 6
    np.testing.assert_array_equal(video.rows, pipeline.open(padded).rows)


def test_an_image_is_one_frame_and_a_short_clip_as_long_as_it_is(pipeline: Pipeline, tmp_path: Path) -> None:
    encode_video(tmp_path / "short.mp4", frames(5))
    assert len(pipeline.open(tmp_path / "short.mp4").timestamps) == 5
    assert len(pipeline.open(frames(1)).timestamps) == 1
    assert len(pipeline.open(frames(5), frames=8).timestamps) == 8  # asked for, so given


def test_the_times_of_the_frames_stand_before_the_question(bundle: Path) -> None:
    pipeline = load(bundle)
    video = pipeline.open(frames(4), timestamps=[0, 1.5, 3, 4.5])
    plain = video.ask("What?", SHORT).stats.prompt_tokens
    pipeline.times = True
    said = f"{time_instruction([0, 1.5, 3, 4.5])}\nWhat?"
    more = len(pipeline.prompt.encode(said)) - len(pipeline.prompt.encode("What?"))
    assert video.ask("What?", SHORT).stats.prompt_tokens == plain + more
    assert pipeline.worker().times


def test_sampling_keeps_every_other_pooled_frame(pipeline: Pipeline) -> None:
    clip = frames(16)
    every = pipeline.open(clip).rows.reshape(4, 16, -1)
    np.testing.assert_array_equal(pipeline.open(clip, sample=2).rows.reshape(2, 16, -1), every[::2])


def test_a_file_and_its_frames_from_memory_look_alike(pipeline: Pipeline, tmp_path: Path) -> None:
    clip = frames(16, 3, size=96)
    path = tmp_path / "clip.mp4"
    encode_video(path, clip, fps=8, codec="libx264rgb", options={"qp": "0"})
    video = pipeline.open(path, frames=8)
    memory = pipeline.open(clip, frames=8, timestamps=np.arange(16) / 8)
    np.testing.assert_allclose(video.timestamps, memory.timestamps)
    np.testing.assert_array_equal(video.rows, memory.rows)


def test_frames_may_come_one_by_one_with_their_timestamps(pipeline: Pipeline) -> None:
    clip = frames(8, 5)
    video = pipeline.open(((i / 4, frame) for i, frame in enumerate(clip)), fps=4)
    np.testing.assert_allclose(video.timestamps, np.arange(8) / 4)
    np.testing.assert_array_equal(video.rows, pipeline.open(clip).rows)


def test_more_frames_than_the_buffers_hold_are_refused_before_decoding(pipeline: Pipeline) -> None:
    with pytest.raises(UsageError, match="4000 frames make 16000 visual tokens, the language model holds 8192"):
        pipeline.open("missing.mp4", frames=4000)


def test_more_frames_than_the_buffers_hold_are_refused_while_they_come(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(pipeline.stages.generator), "capacity", property(lambda _: 128))
    endless = ((i / 30, frame) for i in range(10**9) for frame in frames(1))
    with pytest.raises(UsageError, match="visual tokens, the language model holds 128"):
        pipeline.open(endless, fps=30)


def test_a_prompt_longer_than_the_context_is_refused_and_the_next_is_answered(pipeline: Pipeline) -> None:
    video = pipeline.open(frames(4))
    with pytest.raises(UsageError, match=r"the prompt has \d+ tokens, 16 of them visual, .* holds 8192"):
        video.ask("why " * 9000)
    assert video.ask("why", SHORT).stats.prompt_tokens < 100


def test_an_answer_streams_and_then_says_what_it_took(pipeline: Pipeline) -> None:
    answer = pipeline.open(frames(8)).ask("What?", SHORT)
    assert answer.stats.finish == "unfinished"
    pieces = list(answer)
    stats = answer.stats
    assert "".join(pieces) == answer.text
    assert (stats.finish, stats.answer_tokens, stats.frames, stats.visual_tokens) == ("length", 6, 8, 32)
    assert set(stats.seconds) == {"video decode", "vision", "temporal", "prefill", "decode"}
    assert all(value > 0 for value in stats.seconds.values())
    assert stats.peak_memory_bytes > 2**20


def test_bad_arguments_are_usage_errors(pipeline: Pipeline) -> None:
    for wrong in ({"sample": 0}, {"frames": 0}, {"frames": 4, "fps": 1.0}, {"fps": -1.0}):
        with pytest.raises(UsageError):
            pipeline.open(frames(4), **wrong)  # type: ignore[arg-type]
    with pytest.raises((UsageError, VideoError)):
        pipeline.open(iter(()), fps=1)


def test_a_bundle_without_engines_names_the_command(bundle: Path, copy_of) -> None:  # type: ignore[no-untyped-def]
    import shutil

    copy = copy_of(bundle)
    shutil.rmtree(copy / "engines")
    with pytest.raises(EngineError, match=r"has no engines.*storm build .*--target cpu"):
        load(copy)


def test_an_answer_read_on_after_another_question_says_so_and_the_newer_one_is_right(
    pipeline: Pipeline, bundle: Path
) -> None:
    clip = frames(8, 6)
    video = pipeline.open(clip)
    stale = video.ask("What is this?", SHORT)
    piece = next(iter(stale))
    newer = video.ask("Which way?", SHORT)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"another question was asked on this pipeline .* to its end first"):
            stale.read()
    assert stale.text == piece
    assert stale.stats.finish == "unfinished"
    assert (newer.read(), newer._generation.ids) == fresh_answer(bundle, clip, "Which way?")


@pytest.mark.parametrize("other", ["ask of another video", "chat", "evaluate", "divergence"])
def test_whatever_moves_a_pipeline_on_makes_its_unread_answer_stale(pipeline: Pipeline, other: str) -> None:
    video = pipeline.open(frames(8, 7))
    stale = video.chat("What is this?", SHORT)
    next(iter(stale))
    if other == "chat":
        video.chat("And then?", SHORT)
    elif other == "divergence":
        logit_divergence(pipeline.bundle, pipeline.stages)
    elif other == "evaluate":
        evaluate(pipeline, [Item("a", frames(8, 8), "Why?", "b", "c")])
    else:
        pipeline.open(frames(8, 8)).ask("Why?", SHORT)
    with pytest.raises(UsageError, match="another question was asked"):
        stale.read()


def test_a_question_after_forced_tokens_is_answered_as_before(pipeline: Pipeline) -> None:
    video = pipeline.open(frames(8, 17))
    text = video.ask("What?", SHORT).read()
    logit_divergence(pipeline.bundle, pipeline.stages)
    again = video.ask("What?", SHORT)
    assert (again.read(), again.stats.reused_tokens) == (text, 0)


def test_opening_a_video_leaves_an_unread_answer_as_it_is(pipeline: Pipeline, bundle: Path) -> None:
    clip = frames(8, 9)
    answer = pipeline.open(clip).ask("What?", SHORT)
    next(iter(answer))
    pipeline.open(frames(8, 10))
    assert (answer.read(), answer._generation.ids) == fresh_answer(bundle, clip, "What?")


def test_an_answer_read_to_its_end_and_a_question_refused_before_it_began_are_not_stale(pipeline: Pipeline) -> None:
    video = pipeline.open(frames(4))
    answer = video.ask("What?", SHORT)
    next(iter(answer))
    with pytest.raises(UsageError, match="the prompt has"):
        video.ask("why " * 9000)
    text = answer.read()
    video.ask("Why?", SHORT).read()
    assert answer.read() == text


def test_what_was_read_of_a_stale_chat_answer_stays_in_the_conversation(pipeline: Pipeline) -> None:
    video = pipeline.open(frames(8, 11))
    stale = video.chat("What is this?", SamplingOptions(max_tokens=40))
    pieces = iter(stale)
    read = next(pieces) + next(pieces)
    video.ask("Something else?", SHORT)
    with pytest.raises(UsageError, match="another question was asked"):
        next(pieces)
    video.chat("And then?", SHORT).read()
    written = pipeline.prompt.decode(key for key in held(pipeline) if key >= 0)
    assert f"assistant\n{read}\nuser\nAnd then?" in written


def test_a_second_thread_is_refused_at_once_and_the_first_goes_on(pipeline: Pipeline, bundle: Path) -> None:
    clip = frames(8, 12)
    video = pipeline.open(clip)
    inside, leave = threading.Event(), threading.Event()

    def slow() -> Iterator[tuple[float, NDArray[np.uint8]]]:
        inside.set()
        assert leave.wait(30)
        yield from ((i / 2, frame) for i, frame in enumerate(clip))

    with ThreadPoolExecutor(1) as other:
        opened = other.submit(pipeline.open, slow(), fps=2)
        assert inside.wait(30)
        begun = time.perf_counter()
        for call in (lambda: video.ask("What?"), lambda: video.chat("What?"), lambda: pipeline.open(clip)):
            with pytest.raises(UsageError, match="computing for another call"):
                call()
        assert time.perf_counter() - begun < 1
        leave.set()
        answer = opened.result(30).ask("What?", SHORT)
    assert (answer.read(), answer._generation.ids) == fresh_answer(bundle, clip, "What?")


def test_threads_that_share_a_pipeline_are_never_given_a_wrong_answer(pipeline: Pipeline) -> None:
    videos = [pipeline.open(frames(8, seed)) for seed in (13, 14)]
    expected = [video.ask("What?", SHORT).read() for video in videos]

    def ask(i: int) -> str | None:
        try:
            return videos[i % 2].ask("What?", SHORT).read()
        except UsageError:
            return None

    with ThreadPoolExecutor(2) as threads:
        for i, text in enumerate(threads.map(ask, range(80))):
            assert text in (None, expected[i % 2])


def test_workers_of_one_pipeline_answer_in_threads_as_one_after_the_other(bundle: Path) -> None:
    one = load(bundle, threads=1)
    videos = [pipeline.open(frames(8, seed)) for seed, pipeline in ((15, one), (16, one.worker()))]
    questions = ("What is this?", "Which way does it move?")

    def ask(video: Video) -> list[tuple[str, list[int]]]:
        return [(a.read(), a._generation.ids) for a in (video.ask(question, SHORT) for question in questions)]

    expected = [ask(video) for video in videos]
    assert expected[0] != expected[1]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(20):
            assert list(threads.map(ask, videos)) == expected


def test_still_frames_answer_as_if_each_was_encoded(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    slides = frames(5, seed=3)[[0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 4, 4, 4]]
    reusing = pipeline.open(slides, frames=17)
    assert reusing.reused_frames == 12
    assert reusing.ask("What?", SHORT).stats.reused_frames == 12
    monkeypatch.setattr("storm_edge.runtime.answer.still.StillFrames._alike", lambda *_: False)
    each = pipeline.open(slides, frames=17)
    assert each.reused_frames == 0
    np.testing.assert_array_equal(reusing.rows, each.rows)


def test_nearly_still_frames_are_encoded_unless_a_tolerance_is_given(pipeline: Pipeline) -> None:
    noisy = frames(1)[[0] * 8] // 2
    noisy[1::2] += 1
    assert pipeline.open(noisy, frames=8).reused_frames == 0
    assert pipeline.open(noisy, frames=8, skip_still=1).reused_frames == 7
    with pytest.raises(UsageError, match="skip_still"):
        pipeline.open(noisy, skip_still=-1)


def test_an_iterable_is_asked_in_its_owners_thread_and_a_file_beside_vision(pipeline: Pipeline, tmp_path: Path) -> None:
    seen = []

    def camera() -> Iterator[tuple[float, NDArray[np.uint8]]]:
        for i, frame in enumerate(frames(12)):
            seen.append(threading.current_thread())
            yield i / 10, frame

    pipeline.open(camera(), frames=12)
    assert set(seen) == {threading.current_thread()}
    encode_video(tmp_path / "a.mp4", frames(12))
    decoded = []
    with pytest.MonkeyPatch.context() as patch:
        resize = Resizer.__call__
        patch.setattr(Resizer, "__call__", lambda *a: decoded.append(threading.current_thread().name) or resize(*a))
        pipeline.open(tmp_path / "a.mp4", frames=12)
    assert set(decoded) == {"storm-decode"}
    assert "storm-decode" not in [thread.name for thread in threading.enumerate()]


def test_a_cancelled_answer_computes_no_further_token(pipeline: Pipeline) -> None:
    answer = pipeline.open(frames(8)).ask("Which way?", SamplingOptions(max_tokens=200))
    pieces = iter(answer)
    next(pieces)
    computed = answer.stats.answer_tokens
    answer.cancel()
    list(pieces)
    assert answer.stats.answer_tokens == computed
    assert answer.stats.finish == "unfinished"


def test_frames_that_were_chosen_elsewhere_are_encoded_as_those_of_the_source(pipeline: Pipeline) -> None:
    clip = frames(12)
    batches = read_frames(clip, size=64, frames=8, batch=3)
    video, truth = pipeline.encode(batches, sample=2), pipeline.open(clip, frames=8, sample=2)
    assert np.array_equal(video.timestamps, truth.timestamps)
    np.testing.assert_allclose(video.rows, truth.rows, atol=1e-5)
    with pytest.raises(UsageError, match="sample is 0"):
        pipeline.encode([], sample=0)


def test_a_video_is_asked_about_on_every_pipeline_of_its_weights(pipeline: Pipeline) -> None:
    other = pipeline.worker()
    videos = [pipeline.open(frames(8, 1)), other.open(frames(8, 2))]
    assert videos[0].serial != videos[1].serial
    truth = [video.ask("Which way?", SHORT).read() for video in videos]
    messages = [Message("user", "Which way?", video=True)]
    assert [other.answer(video, messages, SHORT).read() for video in videos] == truth
