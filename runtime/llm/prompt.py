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

from tokenizers import Tokenizer

from storm_edge.runtime.bundle.door import user_file
from storm_edge.runtime.errors import BundleError, StormError, UsageError
from storm_edge.runtime.llm.detokenize import StreamDecoder, token_bytes
from storm_edge.runtime.llm.template import ChatTemplate, TemplateFault

# What Qwen2-VL's template writes for a video.
VIDEO_TOKEN = "<|video_pad|>"
# Private-use characters: no tokenizer gives them a meaning, no template trims or changes them.
_VIDEO_PLACE = "\ue000video\ue001"
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

    def __init__(self, tokenizer: dict[str, Any], template: ChatTemplate, eos: Iterable[int | str]) -> None:
        added = tokenizer.get("added_tokens") or []
        self._added: dict[str, int] = {str(token["content"]): int(token["id"]) for token in added}
        self._text_of_added = {t["id"]: b"" if t.get("special") else t["content"].encode() for t in added}
        # Without its added tokens, and without limits that would cut a prompt silently.
        self._plain: Tokenizer = Tokenizer.from_str(
            json.dumps({**tokenizer, "added_tokens": [], "truncation": None, "padding": None, "post_processor": None})
        )
        self._template = template
        ids = {self._added.get(end) if isinstance(end, str) else end for end in eos}
        self.eos_ids = frozenset(end for end in ids if end is not None)
        self._content_is_list = self._probe()

    @classmethod
    def open(cls, folder: Path, error: type[StormError] = BundleError) -> ChatPrompt:
        """`read` of a folder that the user named or a checkpoint holds."""

        def text(name: str) -> str | None:
            path = folder / name
            return user_file(path, error, _RESTORE).read_text(encoding="utf-8") if path.exists() else None

        return cls.read(text, folder, error)

    @classmethod
    def read(cls, text: Callable[[str], str | None], folder: Path, error: type[StormError] = BundleError) -> ChatPrompt:
        """Read tokenizer.json, tokenizer_config.json, and chat_template.jinja and generation_config.json if there.

        `text` gives a file's text by its name, None where there is none; `folder` is where they are, for messages.
        Raises `error`, one line, for a folder that is incomplete, damaged, or not a byte-level tokenizer's.
        """
        tokenizer = _read_json(text, folder / "tokenizer.json", error)
        config = _read_json(text, folder / "tokenizer_config.json", error)
        generation = _read_json(text, folder / "generation_config.json", error, optional=True)
        if not _is_byte_level(tokenizer.get("decoder")):
            raise error(
                f"{folder / 'tokenizer.json'} is not byte-level: use the tokenizer of the Qwen2 language model."
            )
        special = {key: said for key in ("bos_token", "eos_token", "pad_token") if (said := _token_text(config, key))}
        source = _template_source(text, folder, config, error)
        try:
            return cls(tokenizer, ChatTemplate(source, special), _ends(generation, special))
        except TemplateFault as e:
            raise error(f"the chat template in {folder} {e}: {_RESTORE}") from e
        # The tokenizers library raises bare Exception for a tokenizer.json that it cannot use.
        except Exception as e:
            raise error(f"{folder / 'tokenizer.json'} cannot be used ({' '.join(str(e).split())}): {_RESTORE}") from e

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max([*self._plain.get_vocab().values(), *self._added.values()]) + 1

    @cached_property
    def newline_id(self) -> int:
        r"""The one token of "\n", whose embedding `reduction.newline_token` appends to every frame."""
        ids = self.encode("\n")
        if len(ids) != 1:
            raise BundleError(f"the tokenizer writes a newline as {len(ids)} tokens, but one is needed: {_RESTORE}")
        return ids[0]

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text: nothing in it is a special token."""
        # A command line that is not UTF-8 arrives with lone surrogates, which no tokenizer takes.
        valid = text.encode(errors="replace").decode()
        ids: list[int] = self._plain.encode(valid, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids` without special tokens."""
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def stream(self) -> StreamDecoder:
        """A decoder for ids that come one after the other."""
        return StreamDecoder(self.token_bytes)

    def token_bytes(self, token: int) -> bytes:
        """What one token adds to the text; nothing for special tokens and for ids that no token has."""
        if token in self._text_of_added:
            return self._text_of_added[token]
        text: str | None = self._plain.id_to_token(token)
        return b"" if text is None else token_bytes(text)

    def render(self, messages: Sequence[Message]) -> Prompt:
        """The ids of a conversation in which exactly one message has the video, up to where the answer begins."""
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
        except TemplateFault:
            self._render(messages, content_is_list=False)
            return False
        return True

    def _render(self, messages: Sequence[Message], content_is_list: bool) -> Prompt:
        places = [f"\ue000{index}\ue001" for index in range(len(messages))]
        rendered = self._template.render(
            [
                {"role": message.role, "content": _content(message, place, content_is_list)}
                for message, place in zip(messages, places, strict=True)
            ]
        )
        lost = [i for i, place in enumerate(places) if place not in rendered]
        if lost:
            raise TemplateFault(f"leaves out the text of message {lost[0] + 1}")
        video = VIDEO_TOKEN if content_is_list else _VIDEO_PLACE
        if rendered.count(video) != 1:
            raise TemplateFault(f"writes the video {rendered.count(video)} times instead of once")
        texts = dict(zip(places, (message.text for message in messages), strict=True))
        before, after = rendered.split(video)
        return Prompt(self._ids(before, texts), self._ids(after, texts))

    def _ids(self, rendered: str, texts: dict[str, str]) -> list[int]:
        """Ids of a piece of the template's output, with `texts` in place of their placeholders."""
        # Longest first: of two special tokens that begin alike, the longer one is meant.
        marks = sorted([*self._added, *texts], key=len, reverse=True)
        ids: list[int] = []
        run = ""  # text of template and user that tokens may span
        for piece in re.split("(" + "|".join(map(re.escape, marks)) + ")", rendered):
            if piece in self._added:
                ids += [*self.encode(run), self._added[piece]]
                run = ""
            else:
                run += texts.get(piece, piece)
        return ids + self.encode(run)


def _content(message: Message, place: str, as_list: bool) -> str | list[dict[str, str]]:
    if not as_list:
        return f"{_VIDEO_PLACE}\n{place}" if message.video else place
    if message.video:
        return [{"type": "video"}, {"type": "text", "text": place}]
    return place if message.role == "system" else [{"type": "text", "text": place}]


def _read_json(
    text: Callable[[str], str | None], path: Path, error: type[StormError], *, optional: bool = False
) -> dict[str, Any]:
    try:
        found = text(path.name)
        if found is None and optional:
            return {}
        if found is None:
            raise error(f"{path} is missing: {_RESTORE}")
        data = json.loads(found)
    except (OSError, ValueError, RecursionError) as e:
        raise error(f"{path} cannot be read as JSON ({' '.join(str(e).split())}): {_RESTORE}") from e
    if not isinstance(data, dict):
        raise error(f"{path} holds no JSON object: {_RESTORE}")
    return data


def _is_byte_level(decoder: Any) -> bool:
    if not isinstance(decoder, dict):
        return False
    inner = decoder.get("decoders")
    return decoder.get("type") == "ByteLevel" or (isinstance(inner, list) and any(map(_is_byte_level, inner)))


def _token_text(config: dict[str, Any], key: str) -> str | None:
    value = config.get(key)
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _template_source(
    text: Callable[[str], str | None], folder: Path, config: dict[str, Any], error: type[StormError]
) -> str:
    path = folder / "chat_template.jinja"
    try:
        source: Any = text(path.name) or config.get("chat_template")
    except (OSError, UnicodeDecodeError) as e:
        raise error(f"{path} cannot be read ({e}): {_RESTORE}") from e
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
