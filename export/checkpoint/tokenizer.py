"""The tokenizer folder of a checkpoint: one made by rule for random checkpoints, or a checked copy of another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from storm_edge.export.checkpoint.regular import check_regular
from storm_edge.runtime.errors import CheckpointError, UsageError
from storm_edge.runtime.llm.detokenize import BYTE_TO_CHAR
from storm_edge.runtime.llm.prompt import ChatPrompt
from storm_edge.runtime.llm.tokenizer import QWEN2_SPLIT

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (
    END_OF_TEXT,
    TURN_START,
    TURN_END,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = """\
{%- if messages[0]['role'] != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'video' -%}
{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif part['type'] == 'text' -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""
# In front of a template: content in parts becomes text, a video's part right before what follows it.
JOINED = (
    "{%- set joined = namespace(messages=[]) -%}{%- for message in messages -%}{%- set content = namespace(text='') -%}"
    "{%- if message['content'] is string -%}{%- set content.text = message['content'] -%}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- set content.text = content.text + ('<video>' if part['type'] == 'video' else part['text']) -%}{%- endfor -%}"
    "{%- endif -%}{%- set joined.messages = joined.messages + [{'role': message['role'], 'content': content.text}] -%}"
    "{%- endfor -%}{%- set messages = joined.messages -%}"
)
# What a tokenizer folder may hold that the runtime reads.
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)


def write_byte_tokenizer(folder: Path, vocab_size: int) -> None:
    """Write a tokenizer of exactly `vocab_size` tokens with Qwen2's rules and special tokens, and no training corpus.

    256 bytes, then letter pairs, syllables and word beginnings enumerated by rule, then the special tokens. Equal sizes
    give equal bytes. Raises UsageError for a size that leaves no room for the bytes, or that the rules cannot fill.
    """
    smallest = 256 + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise UsageError(f"a vocabulary of {vocab_size} is too small: a byte-level tokenizer needs {smallest} or more.")
    vocab, merges = _vocabulary(vocab_size - len(SPECIAL_TOKENS))
    if len(vocab) + len(SPECIAL_TOKENS) < vocab_size:
        raise UsageError(
            f"a vocabulary of {vocab_size} is larger than the rules fill ({len(vocab) + len(SPECIAL_TOKENS)}):"
            " name a tokenizer of that size with --tokenizer."
        )
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL_TOKENS])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "add_prefix_space": False,
            "bos_token": None,
            "eos_token": TURN_END,
            "pad_token": END_OF_TEXT,
            "unk_token": None,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    ends = [tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END_OF_TEXT)]
    _write_json(folder / "generation_config.json", {"eos_token_id": ends, "pad_token_id": ends[1]})


def copy_tokenizer(source: Path, folder: Path, vocab_size: int, *, joined: bool = False) -> None:
    """Copy another model's tokenizer; CheckpointError if it is damaged or has ids beyond `vocab_size`.

    `joined` lets its chat template write a video right before the text, where others put a line end between.
    """
    template = check_tokenizer(source, vocab_size).template
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if joined:
        (folder / "chat_template.jinja").write_text(JOINED + template.source, encoding="utf-8")


def check_tokenizer(folder: Path, vocab_size: int) -> ChatPrompt:
    """Open a checkpoint's tokenizer; CheckpointError if it is damaged or has ids beyond `vocab_size`."""
    for name in FILES:
        check_regular(folder / name)
    prompt = ChatPrompt.open(folder, error=CheckpointError)
    if prompt.vocab_size > vocab_size:
        raise CheckpointError(
            f"the tokenizer in {folder} has ids up to {prompt.vocab_size - 1}, but the language model's vocabulary ends"
            f" at {vocab_size - 1}: use the tokenizer the model was trained with, or set llm.vocab_size."
        )
    return prompt


def _vocabulary(size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """`size` tokens at most: the 256 bytes, in order, then what merges make."""
    vocab = {BYTE_TO_CHAR[byte]: byte for byte in range(256)}
    merges: list[tuple[str, str]] = []
    for left, right in _merges():
        if left + right not in vocab:
            if len(vocab) == size:
                break
            vocab[left + right] = len(vocab)
        merges.append((left, right))
    return vocab, merges


def _merges() -> Iterator[tuple[str, str]]:
    """Pairs of tokens to merge, both of which exist by then; digits stay single, as in Qwen2."""
    space, newline = BYTE_TO_CHAR[ord(" ")], BYTE_TO_CHAR[ord("\n")]
    yield from ((space, space), (newline, newline), (space + space, space + space))
    yield from product(ascii_lowercase, ascii_lowercase)
    pairs = ["".join(pair) for pair in product(ascii_lowercase, repeat=2)]
    yield from ((space, letter) for letter in ascii_lowercase + ascii_uppercase)
    yield from ((space, pair) for pair in pairs)
    yield from product(ascii_uppercase, ascii_lowercase)
    yield from ((space, upper + lower) for upper, lower in product(ascii_uppercase, ascii_lowercase))
    vowels = "aeiou"
    consonants = [letter for letter in ascii_lowercase if letter not in vowels]
    syllables = product(consonants, vowels, consonants)
    for first, second, third in (*syllables, *product(ascii_lowercase, repeat=3)):
        # Either pair may have been merged before; both ways lead to the same token.
        yield first + second, third
        yield first, second + third
    yield from product(pairs, pairs)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
