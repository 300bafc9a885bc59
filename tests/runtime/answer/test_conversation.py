"""Whose turn it is, `test_pipeline` has with threads."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from storm_edge.runtime.answer.conversation import Conversation, Turns
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.llm.prompt import Message


@dataclass
class Said:
    text: str


def test_a_conversation_holds_what_was_read_of_each_answer_by_the_time_of_the_next_question() -> None:
    conversation, answer = Conversation(), Said("a ball")
    assert conversation.asking("What?") == [Message("user", "What?", video=True)]
    conversation.add("What?", answer)
    answer.text += " that rolls"
    assert conversation.asking("Where?") == [
        Message("user", "What?", video=True),
        Message("assistant", "a ball that rolls"),
        Message("user", "Where?"),
    ]


def test_a_turn_is_free_again_after_an_error() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.held():
        raise ZeroDivisionError
    with turns.held(), pytest.raises(UsageError, match="computing for another call"), turns.held():
        pass
