"""The loop over a model whose logits depend on everything that it holds; `test_pipeline` has it over a real one."""

from __future__ import annotations

import numpy as np
import pytest

from storm_edge.runtime.errors import EngineError, UsageError
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.llm.stepwise import StepwiseGenerator
from storm_edge.runtime.sessions.device import HOST

VOCABULARY = 11
OPTIONS = SamplingOptions(max_tokens=4)


class _Adding:
    """Its next token is the sum of all that was appended; `computed` counts appended positions."""

    device = HOST

    def __init__(self, capacity=100):
        self.capacity, self.computed, self.fails = capacity, 0, False
        self.sums = [0]

    @property
    def position(self):
        return len(self.sums) - 1

    def embed(self, ids):
        return np.array(ids, np.float32)[:, None]

    def append(self, embeds):
        if self.fails:
            raise EngineError("fails")
        for value in embeds[:, 0]:
            self.sums.append(self.sums[-1] + int(value))
            self.computed += 1
        return np.eye(VOCABULARY, dtype=np.float32)[self.sums[-1] % VOCABULARY]

    def rewind(self, position):
        self.sums = self.sums[: position + 1]

    def worker(self):
        return _Adding(self.capacity)


def _prompt(*after, video=1, continues=False):
    return SplicedPrompt([1, 2], np.full((3, 1), 5, np.float32), after, video, continues)


def _start(generator, prompt, ends=()):
    return generator.start(prompt, OPTIONS, ends)


def test_a_stream_gives_the_tokens_of_the_loop():
    stream = _start(StepwiseGenerator(_Adding()), _prompt(3))
    assert list(stream) == [10, 9, 7, 3]  # 1 + 2 + 3 * 5 + 3 = 21
    assert (stream.finish, stream.ids, stream.reused) == ("length", [10, 9, 7, 3], 0)


def test_a_token_that_ends_the_answer_is_not_in_it():
    stream = _start(StepwiseGenerator(_Adding()), _prompt(3), ends={7})
    assert (list(stream), stream.finish) == ([10, 9], "end")


def test_a_question_reuses_the_visual_tokens_and_a_continued_prompt_what_was_answered_too():
    generator = StepwiseGenerator(_Adding())
    answered = list(_start(generator, _prompt(3)))
    assert _start(generator, _prompt(3)).reused == 5
    list(_start(generator, _prompt(3)))
    continued = _start(generator, _prompt(3, *answered[:3], 8, continues=True))
    assert continued.reused == 9
    assert list(continued) == list(_start(StepwiseGenerator(_Adding()), _prompt(3, *answered[:3], 8)))
    assert _start(generator, _prompt(3, video=2)).reused == 2


def test_forced_tokens_give_their_logits_and_nothing_of_theirs_is_reused():
    generator = StepwiseGenerator(_Adding())
    tokens = list(_start(generator, _prompt(3)))
    assert generator.forced(_prompt(3), tokens).argmax(axis=1).tolist() == tokens
    assert _start(generator, _prompt(3)).reused == 0


@pytest.mark.parametrize("other", ["start", "forced"])
def test_a_stream_says_that_another_prompt_came_and_says_it_again(other):
    generator = StepwiseGenerator(_Adding())
    stream = _start(generator, _prompt(3))
    next(stream)
    _start(generator, _prompt(4)) if other == "start" else generator.forced(_prompt(4), [1])
    for _ in range(2):
        with pytest.raises(UsageError, match="another question was asked"):
            next(stream)
    assert stream.ids == [10]


def test_a_prompt_that_does_not_fit_is_refused_and_leaves_earlier_streams():
    generator = StepwiseGenerator(_Adding(capacity=20))
    stream = _start(generator, _prompt(3))
    with pytest.raises(UsageError, match="the prompt has 20 tokens, 3 of them visual, the language model holds 20"):
        _start(generator, _prompt(*[1] * 15))
    assert list(stream) == [10, 9, 7, 3]


def test_what_an_engine_failed_at_is_computed_again_later():
    generator = StepwiseGenerator(_Adding())
    list(_start(generator, _prompt(3)))
    generator.model.fails = True
    with pytest.raises(EngineError):
        _start(generator, _prompt(4))
    generator.model.fails = False
    stream = _start(generator, _prompt(3))
    next(stream)
    generator.model.fails = True
    with pytest.raises(EngineError):
        next(stream)
    generator.model.fails = False
    assert [*stream.ids, *stream] == [10, 9, 7, 3]


def test_a_worker_has_a_sequence_of_its_own():
    generator = StepwiseGenerator(_Adding())
    stream = _start(generator, _prompt(3))
    next(stream)
    other = _start(generator.worker(), _prompt(4))
    assert other.reused == 0
    assert [*stream.ids, *stream] == [10, 9, 7, 3]
