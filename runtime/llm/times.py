"""The moments of a clip's frames in words, as LLaVA-NeXT's code trains models that are told them.

The sentence is that of its llava/train/train.py (`add_time_instruction`), which LLaVA-Video and BIMBA share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from storm_edge.runtime.llm.prompt import Message


def time_instruction(seconds: Sequence[float]) -> str:
    """What stands before the question about frames at `seconds`.

    The video lasts until the last of them: its file's length would be one frame more, and a live one has none.
    """
    places = ",".join(f"{moment:.2f}s" for moment in seconds)
    return (
        f"The video lasts for {max(seconds):.2f} seconds, and {len(seconds)} frames are uniformly sampled from it."
        f" These frames are located at {places}.Please answer the following questions related to this video."
    )


def with_times(messages: Sequence[Message], seconds: Sequence[float]) -> list[Message]:
    """The conversation with that sentence on a line of its own before the text that the video stands in front of."""
    said = time_instruction(seconds)
    return [replace(message, text=f"{said}\n{message.text}") if message.video else message for message in messages]
