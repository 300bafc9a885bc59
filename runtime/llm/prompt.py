"""From a conversation to token ids, with one place left for the video.

The chat template only ever sees placeholders, and the text that replaces them is tokenized by a tokenizer that knows no
special tokens: `<|im_end|>` typed by a user is ten harmless characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from storm_edge.runtime.bundle.door import user_file
from storm_edge.runtime.errors import BundleError, StormError, UsageError
from storm_edge.runtime.llm.detokenize import StreamDecoder
from storm_edge.runtime.llm.template import ChatTemplate
from storm_edge.runtime.llm.template_limits import TemplateFault, TemplateLimitFault
from storm_edge.runtime.llm.tokenizer import ByteLevelTokenizer, TokenizerFault, no_garbage

# The text of a tokenizer's file by its name and the most bytes it may have; None where there is none.
Texts = Callable[[str, int], "str | None"]
# What templates that take content in parts write for a video: Qwen2-VL's, and LLaVA-OneVision's.
VIDEO_TOKENS = ("<|video_pad|>", "<video>")
# Private-use characters: no tokenizer gives them a meaning, no template trims or changes them.
_VIDEO_PLACE = "\ue000video\ue001"
# Qwen2's tokenizer.json has 7 MB and 450,000 values, Qwen3's 11 MB and 600,000. A value takes some 200 bytes once read.
LARGEST_TOKENIZER, LARGEST_CONFIG = 32 * 2**20, 4 * 2**20  # bytes
MOST_VALUES = 2 * 10**6
LARGEST_PROMPT = 2**20  # bytes; 32,768 tokens of text are some 150,000
_RESTORE = "restore the tokenizer folder from its source."


@dataclass(frozen=True)
class Message:
    """One turn; a video stands before the text."""

    role: Literal["system", "user", "assistant"]
    text: str
    video: bool = False


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the visual tokens."""

    before: list[int]
    after: list[int]


class ChatPrompt:
    """The tokenizer and the chat template of one model."""

    def __init__(self, tokenizer: ByteLevelTokenizer, template: ChatTemplate, eos: Iterable[int | str]) -> None:
        self._tokenizer, self.template = tokenizer, template
        ids = {tokenizer.added.get(end) if isinstance(end, str) else end for end in eos}
        self.eos_ids = frozenset(end for end in ids if end is not None)
        self._content_is_list = self._probe()

    @classmethod
    def open(cls, folder: Path, error: type[StormError] = BundleError) -> ChatPrompt:
        """`read` of a folder that the user named or a checkpoint holds."""

        def text(name: str, largest: int) -> str | None:
            path = folder / name
            if not path.exists():
                return None
            with user_file(path, error, _RESTORE).open("rb") as file:
                content = file.read(largest + 1)
            if len(content) > largest:
                raise error(f"{path} has more than {largest >> 20} MiB, which no tokenizer needs: {_RESTORE}")
            return content.decode("utf-8")

        return cls.read(text, folder, error)

    @classmethod
    @no_garbage()
    def read(cls, text: Texts, folder: Path, error: type[StormError] = BundleError) -> ChatPrompt:
        """Read tokenizer.json, tokenizer_config.json, chat_template.jinja or .json if there, generation_config.json.

        `folder` is where the files are, for messages.
        Raises `error`, one line, for a folder that is incomplete, damaged, or not a byte-level tokenizer's.
        """
        data = _read_json(text, folder / "tokenizer.json", error, LARGEST_TOKENIZER)
        config = _read_json(text, folder / "tokenizer_config.json", error)
        generation = _read_json(text, folder / "generation_config.json", error, optional=True)
        special = {key: said for key in ("bos_token", "eos_token", "pad_token") if (said := _token_text(config, key))}
        source = _template_source(text, folder, config, error)
        try:
            return cls(ByteLevelTokenizer(data), ChatTemplate(source, special), _ends(generation, special))
        except TemplateFault as e:
            raise error(f"the chat template in {folder} {e}: {_RESTORE}") from e
        except TokenizerFault as e:
            raise error(f"{folder / 'tokenizer.json'} {e}, or {_RESTORE}") from e

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self._tokenizer.vocab_size

    @cached_property
    def newline_id(self) -> int:
        r"""The one token of "\n", whose embedding `reduction.newline_token` appends to every frame."""
        ids = self.encode("\n")
        if len(ids) != 1:
            raise BundleError(f"the tokenizer writes a newline as {len(ids)} tokens, but one is needed: {_RESTORE}")
        return ids[0]

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, in which nothing is a special token.

        Raises UsageError for more than LARGEST_PROMPT bytes.
        """
        _check_length(_bytes(text))
        try:
            return self._tokenizer.encode(text)
        except TokenizerFault as e:
            raise BundleError(f"the tokenizer {e}: {_RESTORE}") from e

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids` without special tokens."""
        return b"".join(map(self._tokenizer.token_bytes, ids)).decode(errors="replace")

    def stream(self) -> StreamDecoder:
        """A decoder for ids that come one after the other."""
        return StreamDecoder(self._tokenizer.token_bytes)

    def render(self, messages: Sequence[Message]) -> Prompt:
        """The ids of a conversation in which exactly one message has the video, up to where the answer begins.

        Raises UsageError for a conversation of more than LARGEST_PROMPT bytes.
        """
        if sum(message.video for message in messages) != 1:
            raise UsageError("a conversation needs the video in exactly one of its messages: open a video first.")
        try:
            return self._render(messages, self._content_is_list)
        except TemplateFault as e:
            raise BundleError(f"the chat template {e}: {_RESTORE}") from e

    def _probe(self) -> bool:
        """Whether the template takes content in parts (Qwen2-VL's does, Qwen2's takes one string)."""
        messages = [Message("user", "question", video=True)]
        try:
            self._render(messages, content_is_list=True)
        except TemplateLimitFault:
            raise
        except TemplateFault:
            self._render(messages, content_is_list=False)
            return False
        return True

    def _render(self, messages: Sequence[Message], content_is_list: bool) -> Prompt:
        places = [f"\ue000{index}\ue001" for index in range(len(messages))]
        rendered = self.template.render(
            [
                {"role": message.role, "content": _content(message, place, content_is_list)}
                for message, place in zip(messages, places, strict=True)
            ]
        )
        lost = [i for i, place in enumerate(places) if place not in rendered]
        if lost:
            raise TemplateFault(f"leaves out the text of message {lost[0] + 1}")
        marks = VIDEO_TOKENS if content_is_list else (_VIDEO_PLACE,)
        video = next((mark for mark in marks if mark in rendered), marks[0])
        if rendered.count(video) != 1:
            raise TemplateFault(f"writes the video {rendered.count(video)} times instead of once")
        texts = dict(zip(places, (message.text for message in messages), strict=True))
        # Before anything is joined: a template may write a message's place as often as it likes.
        _check_length(_bytes(rendered) + sum(rendered.count(place) * _bytes(text) for place, text in texts.items()))
        before, after = rendered.split(video)
        return Prompt(self._ids(before, texts), self._ids(after, texts))

    def _ids(self, rendered: str, texts: dict[str, str]) -> list[int]:
        """Ids of a piece of the template's output, with `texts` in place of their placeholders."""
        # Longest first: of two special tokens that begin alike, the longer one is meant.
        marks = sorted((text for text in self._tokenizer.added if text in rendered), key=len, reverse=True)
        ids: list[int] = []
        run = ""  # text of template and user that tokens may span
        for piece in re.split("(" + "|".join(["\ue000[0-9]+\ue001", *map(re.escape, marks)]) + ")", rendered):
            if piece in texts:
                run += texts[piece]
            elif piece in self._tokenizer.added:
                ids += [*self.encode(run), self._tokenizer.added[piece]]
                run = ""
            else:
                run += piece
        return ids + self.encode(run)


def _content(message: Message, place: str, as_list: bool) -> str | list[dict[str, str]]:
    if not as_list:
        return f"{_VIDEO_PLACE}\n{place}" if message.video else place
    if message.video:
        return [{"type": "video"}, {"type": "text", "text": place}]
    return place if message.role == "system" else [{"type": "text", "text": place}]


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


def _check_length(size: int) -> None:
    if size > LARGEST_PROMPT:
        raise UsageError(
            f"the prompt has {size} bytes, more than any language model here reads ({LARGEST_PROMPT}):"
            " shorten the question, or begin a new conversation."
        )


def _read_json(
    text: Texts, path: Path, error: type[StormError], largest: int = LARGEST_CONFIG, *, optional: bool = False
) -> dict[str, Any]:
    try:
        content = text(path.name, largest)
        if content is None and optional:
            return {}
        if content is None:
            raise error(f"{path} is missing: {_RESTORE}")
        if sum(map(content.count, (",", "[", "{"))) > MOST_VALUES:
            raise error(f"{path} has more than {MOST_VALUES} values, which no tokenizer needs: {_RESTORE}")
        data = json.loads(content)
    except (OSError, ValueError, RecursionError) as e:
        raise error(f"{path} cannot be read as JSON ({' '.join(str(e).split())}): {_RESTORE}") from e
    if not isinstance(data, dict):
        raise error(f"{path} holds no JSON object: {_RESTORE}")
    return data


def _token_text(config: dict[str, Any], key: str) -> str | None:
    value = config.get(key)
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _template_source(text: Texts, folder: Path, config: dict[str, Any], error: type[StormError]) -> str:
    path = folder / "chat_template.jinja"
    try:
        source: Any = text(path.name, LARGEST_CONFIG)
    except (OSError, UnicodeDecodeError) as e:
        raise error(f"{path} cannot be read ({e}): {_RESTORE}") from e
    if not source:
        of_processor = _read_json(text, folder / "chat_template.json", error, optional=True)
        source = of_processor.get("chat_template") or config.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = next((x.get("template") for x in source if isinstance(x, dict) and x.get("name") == "default"), None)
    if not isinstance(source, str):
        raise error(f"{folder} has no chat template, neither {path.name} nor in tokenizer_config.json: {_RESTORE}")
    return source


def _ends(generation: dict[str, Any], special: dict[str, str]) -> list[int | str]:
    """Ids or texts of the tokens that end an answer: those declared, and the end of a turn in Qwen2's chat format."""
    declared = generation.get("eos_token_id")
    ids = declared if isinstance(declared, list) else [declared]
    return [*(i for i in ids if isinstance(i, int)), special.get("eos_token", ""), "<|im_end|>"]
