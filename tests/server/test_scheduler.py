"""Who is answered when, with the random model, whose answers have no end of their own."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from storm_edge.runtime.errors import EngineError
from storm_edge.server.engine import Engine


class Gate:
    """Lets the language model compute only as many tokens as it is told, and keeps the order of questions."""

    def __init__(self, engine: Engine) -> None:
        self.tokens = threading.Semaphore(0)
        self.computed = 0
        self.questions: list[str] = []
        self._next, self._begin = engine.next, engine.begin
        engine.next, engine.begin = self.next, self.begin  # type: ignore[method-assign]

    def next(self, pieces: Iterator[str]) -> str | None:
        self.tokens.acquire()
        self.computed += 1
        return self._next(pieces)

    def begin(self, pipeline: Any, video: Any, messages: Any, options: Any) -> Any:
        self.questions.append(messages[-1].text)
        return self._begin(pipeline, video, messages, options)

    def open(self) -> None:
        """Hold nothing back any more."""
        self.tokens.release(100_000)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_a_full_line_is_refused_with_the_time_to_come_back(
    serve: Callable[..., Any], clips: list[Path], threads: ThreadPoolExecutor
) -> None:
    served = serve(queue=1)
    gate = Gate(served.scheduler.engine)
    asked = [threads.submit(served.ask, clips[i].as_uri()) for i in range(2)]
    served.wait_until(lambda: served.scheduler.count == 2)
    with pytest.raises(openai.RateLimitError) as caught:
        served.ask(clips[2].as_uri())
    assert int(caught.value.response.headers["Retry-After"]) >= 1
    assert served.metric("storm_questions_refused_total") == 1
    gate.open()
    assert all(answer.result().choices for answer in asked)
    assert served.ask(clips[2].as_uri()).choices


def test_an_answer_ends_within_a_token_of_its_client_going_away(serve: Callable[..., Any], clips: list[Path]) -> None:
    served = serve()
    gate = Gate(served.scheduler.engine)
    gate.tokens.release(3)
    stream = served.ask(clips[0].as_uri(), tokens=400, stream=True)
    next(iter(stream))
    served.wait_until(lambda: gate.computed == 3)  # it waits to compute the fourth
    (job,) = served.scheduler._jobs
    stream.close()
    served.wait_until(lambda: job._error is not None)
    gate.open()
    served.wait_until(lambda: served.scheduler.count == 0)
    assert gate.computed <= 4  # the fourth was asked for, and ended before it was computed: see Answer.cancel


def test_a_whole_answer_ends_too_when_its_client_goes_away(serve: Callable[..., Any], clips: list[Path]) -> None:
    served = serve()
    gate = Gate(served.scheduler.engine)
    with pytest.raises(openai.APITimeoutError):
        served.client.with_options(timeout=1).chat.completions.create(
            model="mini", messages=served.question(clips[0].as_uri()), max_tokens=400
        )
    served.wait_until(lambda: not served.scheduler._jobs or next(iter(served.scheduler._jobs))._error is not None)
    gate.open()
    served.wait_until(lambda: served.scheduler.count == 0)
    assert gate.computed <= 1


def test_a_question_in_line_whose_client_goes_away_gives_its_place(
    serve: Callable[..., Any], clips: list[Path], threads: ThreadPoolExecutor
) -> None:
    served = serve(queue=1)
    gate = Gate(served.scheduler.engine)
    first = threads.submit(served.ask, clips[0].as_uri())
    served.wait_until(lambda: gate.questions)
    with pytest.raises(openai.APITimeoutError):
        served.client.with_options(timeout=1).chat.completions.create(
            model="mini", messages=served.question(clips[1].as_uri(), "Nobody's?"), max_tokens=4
        )
    served.wait_until(lambda: served.scheduler.count == 1)
    gate.open()
    assert first.result().choices
    assert gate.questions == ["What happens?"]


def test_who_asks_much_does_not_keep_others_waiting(
    serve: Callable[..., Any], clips: list[Path], threads: ThreadPoolExecutor
) -> None:
    served = serve()
    for clip in clips[:2]:
        served.ask(clip.as_uri())
    gate = Gate(served.scheduler.engine)
    asked = []
    for number in range(5):
        asked.append(threads.submit(served.ask, clips[0].as_uri(), f"A{number}", user="a"))
        served.wait_until(lambda number=number: served.scheduler.count == number + 1)
    asked.append(threads.submit(served.ask, clips[1].as_uri(), "B", user="b"))
    served.wait_until(lambda: served.scheduler.count == 6)
    gate.open()
    for answer in asked:
        answer.result()
    assert gate.questions.index("B") <= 2


def test_the_next_video_is_encoded_while_this_answer_is_computed(
    serve: Callable[..., Any], clips: list[Path], threads: ThreadPoolExecutor
) -> None:
    served = serve()
    gate = Gate(served.scheduler.engine)
    asked = [threads.submit(served.ask, clip.as_uri()) for clip in clips]
    served.wait_until(lambda: len(served.scheduler.cache) == 3)  # the one being answered, and AHEAD of it
    time.sleep(0.2)
    assert (len(served.scheduler.cache), len(gate.questions)) == (3, 1)
    gate.open()
    for answer in asked:
        answer.result()
    assert len(served.scheduler.cache) == 4


def test_a_cached_video_does_not_wait_for_one_that_is_decoded(
    serve: Callable[..., Any], clips: list[Path], threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    served.ask(clips[0].as_uri())
    held = threading.Event()
    encode = served.scheduler.engine.encode

    def slow(*arguments: Any) -> Any:
        held.wait(20)
        return encode(*arguments)

    monkeypatch.setattr(served.scheduler.engine, "encode", slow)
    other = threads.submit(served.ask, clips[1].as_uri())
    served.wait_until(lambda: served.scheduler.count == 1)
    assert served.ask(clips[0].as_uri()).storm["video_cached"]
    assert not other.done()
    held.set()
    assert not other.result().storm["video_cached"]


def test_a_second_question_takes_what_was_computed_for_the_first(serve: Callable[..., Any], clips: list[Path]) -> None:
    served = serve()
    first, second = (served.ask(clips[0].as_uri(), text) for text in ("One?", "Two?"))
    assert "vision" in first.storm["seconds"]
    assert not {"vision", "temporal", "video decode"} & set(second.storm["seconds"])
    assert second.usage.prompt_tokens_details.cached_tokens > second.usage.visual_tokens["after"]
    assert served.metric('storm_video_cache_requests_total{result="hit"}') == 1
    assert served.metric('storm_video_cache_requests_total{result="miss"}') == 1


def test_videos_of_one_name_and_size_are_never_taken_for_each_other(
    serve: Callable[..., Any], clips: list[Path], root: Path
) -> None:
    served = serve()
    place = root / "same.mp4"
    size = max(clip.stat().st_size for clip in clips)
    answers = []
    for clip in (*clips, *clips):
        place.write_bytes(clip.read_bytes().ljust(size, b"\0"))
        answers.append(served.ask(place.as_uri(), tokens=12, extra_body={"storm": ["frames"]}))
    pictures = [answer.storm["frames"] for answer in answers]
    assert [answer.storm["video_cached"] for answer in answers] == [False] * 4 + [True] * 4
    assert pictures[:4] == pictures[4:]
    assert len({frames[0] for frames in pictures}) == 4
    texts = [answer.choices[0].message.content for answer in answers]
    assert texts[:4] == texts[4:]


def test_an_answer_past_its_time_ends_with_an_error(serve: Callable[..., Any], clips: list[Path]) -> None:
    served = serve(timeout=1.0)
    gate = Gate(served.scheduler.engine)
    with pytest.raises(openai.APIStatusError) as caught:
        served.ask(clips[0].as_uri())
    assert (caught.value.status_code, caught.value.code) == (504, "timeout")
    gate.tokens.release(2)
    served.wait_until(lambda: served.scheduler.count == 0)
    computed = gate.computed
    gate.tokens.release(1)
    with pytest.raises(openai.APIError, match="longer than"):
        for _ in served.ask(clips[0].as_uri(), stream=True):
            pass
    gate.open()
    assert computed <= 2


def test_an_engine_that_cannot_share_its_weights_takes_turns(
    serve: Callable[..., Any],
    pipeline: Any,
    clips: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    threads: ThreadPoolExecutor,
) -> None:
    def alone() -> None:
        raise EngineError("one set of buffers")

    alike = serve()
    truth = [alike.ask(clip.as_uri(), tokens=8).choices[0].message.content for clip in clips]
    monkeypatch.setattr(pipeline, "worker", alone)
    served = serve(parallel=4)
    assert served.scheduler.engine.answering == [pipeline]
    answers = list(threads.map(lambda clip: served.ask(clip.as_uri(), tokens=8), clips))
    assert [answer.choices[0].message.content for answer in answers] == truth


def test_several_answers_are_computed_at_once_where_that_is_wanted(
    serve: Callable[..., Any], clips: list[Path], threads: ThreadPoolExecutor
) -> None:
    alike = serve()
    truth = [alike.ask(clip.as_uri(), tokens=8).choices[0].message.content for clip in clips]
    served = serve(parallel=3)
    gate = Gate(served.scheduler.engine)
    asked = [threads.submit(served.ask, clip.as_uri(), tokens=8) for clip in clips]
    served.wait_until(lambda: len(gate.questions) == 3)
    gate.open()
    assert [answer.result().choices[0].message.content for answer in asked] == truth


def test_the_last_answers_finish_and_new_questions_are_refused(
    serve: Callable[..., Any], clips: list[Path], threads: ThreadPoolExecutor
) -> None:
    served = serve()
    gate = Gate(served.scheduler.engine)
    last = threads.submit(served.ask, clips[0].as_uri())
    served.wait_until(lambda: gate.questions)
    served.scheduler.refuse()
    with pytest.raises(openai.InternalServerError) as caught:
        served.ask(clips[1].as_uri())
    assert (caught.value.status_code, caught.value.code) == (503, "shutting_down")
    gate.open()
    assert last.result().choices


def test_what_is_left_at_the_end_is_told_so(
    serve: Callable[..., Any], clips: list[Path], threads: ThreadPoolExecutor
) -> None:
    served = serve()
    gate = Gate(served.scheduler.engine)
    asked = [threads.submit(served.ask, clip.as_uri()) for clip in clips[:2]]
    served.wait_until(lambda: served.scheduler.count == 2)
    closing = threads.submit(served.scheduler.close)
    gate.open()
    closing.result()
    for answer in asked:
        with pytest.raises(openai.InternalServerError, match=re.escape("about to end")):
            answer.result()
