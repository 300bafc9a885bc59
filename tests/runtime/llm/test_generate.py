"""The loop with a scripted model: it answers a text byte by byte, so every token is a piece of a character."""

import numpy as np
import pytest

from storm_edge.export.checkpoint.tokenizer import write_byte_tokenizer
from storm_edge.runtime.llm.generate import Generation
from storm_edge.runtime.llm.prompt import ChatPrompt
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.llm.stepwise import StepwiseGenerator
from storm_edge.runtime.sessions.device import HOST

END, ASKED = 258, 7
NOTHING = SplicedPrompt([], np.zeros((0, 1), np.float32), [ASKED])


class _Script:
    """A language model whose tokens are given."""

    device = HOST

    def __init__(self, tokens, capacity=1000):
        self.tokens, self.capacity, self.position = [ASKED, *tokens], capacity, 0

    def embed(self, ids):
        return np.array(ids, np.float32)[:, None]

    def append(self, embeds):
        assert embeds[:, 0].tolist() == self.tokens[self.position : self.position + len(embeds)]
        self.position += len(embeds)
        return np.eye(264, dtype=np.float32)[self.tokens[self.position]]

    def rewind(self, position):
        self.position = position


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_byte_tokenizer(folder, 264)
    return ChatPrompt.open(folder)


def _answer(chat, text, capacity=1000, **options):
    model = _Script([*text.encode(), END], capacity)
    generation = _generation(model, chat, **options)
    return list(generation), generation


def _generation(model, chat, **options):
    tokens = StepwiseGenerator(model).start(NOTHING, SamplingOptions(**options), chat.eos_ids)
    return Generation(tokens, chat.stream(), options.get("stop", ()))


def test_an_answer_streams_whole_characters_until_the_model_ends_it(chat):
    pieces, generation = _answer(chat, "Né 👍!")
    assert pieces == ["N", "é", " ", "👍", "!"]
    assert generation.finish == "end"
    assert generation.ids == list("Né 👍!".encode())


def test_a_stop_string_ends_the_answer_and_is_not_shown(chat):
    pieces, generation = _answer(chat, "one\n\ntwo", stop=("\n\n",))
    assert "".join(pieces) == "one"
    assert generation.finish == "stop"
    assert bytes(generation.ids) == b"one\n\n"


def test_max_tokens_ends_the_answer_and_flushes_what_was_held(chat):
    pieces, generation = _answer(chat, "ab👍", stop=("bc",), max_tokens=2)
    assert "".join(pieces) == "ab"
    assert generation.finish == "length"
    pieces, _ = _answer(chat, "a👍", max_tokens=3)
    assert pieces == ["a", "\ufffd"]


def test_a_full_engine_ends_the_answer_without_an_error(chat):
    pieces, generation = _answer(chat, "abcdef", capacity=4)
    assert "".join(pieces) == "abcd"
    assert generation.finish == "length"


def test_an_answer_can_be_left_before_its_end(chat):
    model = _Script([*b"abc", END])
    generation = _generation(model, chat)
    assert next(iter(generation)) == "a"
    assert generation.finish is None
    assert next(iter(generation)) == "b"
