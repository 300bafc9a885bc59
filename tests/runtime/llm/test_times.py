from __future__ import annotations

from storm_edge.runtime.llm.prompt import Message
from storm_edge.runtime.llm.times import time_instruction, with_times


def test_the_sentence_is_that_of_llava_nexts_code() -> None:
    assert time_instruction([0.0, 1.234, 2.5]) == (
        "The video lasts for 2.50 seconds, and 3 frames are uniformly sampled from it. These frames are located at"
        " 0.00s,1.23s,2.50s.Please answer the following questions related to this video."
    )


def test_it_stands_before_the_question_that_the_video_belongs_to() -> None:
    messages = [Message("user", "What?", video=True), Message("assistant", "A dog."), Message("user", "Why?")]
    timed = with_times(messages, [0.0])
    assert timed[0] == Message("user", f"{time_instruction([0.0])}\nWhat?", video=True)
    assert timed[1:] == messages[1:]
