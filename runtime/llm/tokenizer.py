"""A byte-level tokenizer from a file that came with the model: what the runtime uses of it, checked, and no more.

Splitting patterns are regular expressions that a backtracking engine runs over what the user types, and normalizers can
multiply it, so only those are taken that Qwen2 and its relatives have, word for word.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

from tokenizers import Tokenizer
from tokenizers.models import BPE

from storm_edge.runtime.llm.detokenize import token_bytes

# How Qwen2 splits text before merging: contractions, words with one leading sign or space, single digits, runs of
# signs, line ends, and spaces up to the one that belongs to the next word.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The same with up to three digits together, as Llama 3 does. Both take time in proportion to the text.
_SPLITS = (QWEN2_SPLIT, QWEN2_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|"))
_ISOLATED = {"behavior": "Isolated", "invert": False}
LARGEST_ID = 2**22
MOST_ADDED, LONGEST_ADDED = 4096, 64  # Qwen2 adds 3 to 22 tokens, models with places in an image about a thousand
_ADVICE = "use the tokenizer of the Qwen2 language model"


class TokenizerFault(Exception):  # noqa: N818 - translated by the caller, who knows the file
    """The tokenizer is not one that the runtime takes, or the library failed on it; the message says how."""


class ByteLevelTokenizer:
    """Ids of text and bytes of ids. `added` are the texts that stand for one id each where a template writes them."""

    def __init__(self, data: dict[str, Any]) -> None:
        """`data` is a decoded tokenizer.json; raises TokenizerFault."""
        if not _is_byte_level(data.get("decoder")):
            raise TokenizerFault(f"is not byte-level: {_ADVICE}")
        added = [_added(token) for token in _list(data, "added_tokens")]
        if len(added) > MOST_ADDED:
            raise TokenizerFault(f"adds {len(added)} tokens, more than {MOST_ADDED}: {_ADVICE}")
        self.added = {text: token for text, token, _ in added}
        self._bytes_of_added = {
            token: b"" if special else text.encode(errors="replace") for text, token, special in added
        }
        vocab, merges, ignore_merges = _model(data.get("model"))
        # Without its added tokens, and without limits that would cut a prompt silently.
        checked: dict[str, Any] = {
            "version": "1.0",
            "added_tokens": [],
            "truncation": None,
            "padding": None,
            "normalizer": _normalizer(data.get("normalizer")),
            "pre_tokenizer": _pre_tokenizer(data.get("pre_tokenizer")),
            "model": {"type": "BPE", "vocab": {}, "merges": []},
            "post_processor": None,
            "decoder": None,
        }
        with _no_panic():
            self._tokenizer: Tokenizer = Tokenizer.from_str(json.dumps(checked))
            # As objects: to write 150,000 entries as JSON and read them again takes as long as all the rest.
            self._tokenizer.model = BPE(vocab, merges, ignore_merges=ignore_merges)
        self.vocab_size = max([*vocab.values(), *self.added.values()]) + 1

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text: nothing in it is a special token. Raises TokenizerFault."""
        # A command line that is not UTF-8 arrives with lone surrogates, which no tokenizer takes.
        valid = text.encode(errors="replace").decode()
        with _no_panic():
            ids: list[int] = self._tokenizer.encode(valid, add_special_tokens=False).ids
        return ids

    def token_bytes(self, token: int) -> bytes:
        """What one token adds to the text; nothing for special tokens and for ids that no token has."""
        if token in self._bytes_of_added:
            return self._bytes_of_added[token]
        text: str | None = self._tokenizer.id_to_token(token)
        return b"" if text is None else token_bytes(text)


@contextmanager
def no_garbage() -> Iterator[None]:
    """Do not look for garbage meanwhile: half a million values that stay would be gone through again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def _no_panic() -> Iterator[None]:
    """Translate what the tokenizers library raises: bare Exception, and for a panic no Exception at all."""
    try:
        yield
    except BaseException as e:
        if isinstance(e, Exception) or type(e).__name__ == "PanicException":
            raise TokenizerFault(f"makes the tokenizers library fail ({' '.join(str(e)[:200].split())})") from e
        raise


def _added(token: Any) -> tuple[str, int, bool]:
    """Text, id, and whether it is special."""
    fields: dict[str, Any] = token if isinstance(token, dict) else {}
    text, number = fields.get("content"), fields.get("id")
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST_ADDED or not _is_id(number):
        raise TokenizerFault(
            f"has an added token without a text of 1 to {LONGEST_ADDED} characters and an id: {_ADVICE}"
        )
    return text, number, bool(fields.get("special"))


def _normalizer(data: Any) -> dict[str, str] | None:
    if data is None or data == {"type": "Sequence", "normalizers": []}:
        return None
    if data in ({"type": "NFC"}, {"type": "Sequence", "normalizers": [{"type": "NFC"}]}):
        return {"type": "NFC"}
    raise TokenizerFault(f"changes text in a way other than NFC before it splits it: {_ADVICE}")


def _pre_tokenizer(data: Any) -> dict[str, Any]:
    steps = data.get("pretokenizers") if isinstance(data, dict) and data.get("type") == "Sequence" else [data]
    kept = [_step(step) for step in steps] if isinstance(steps, list) else []
    if [step["type"] for step in kept] not in (["ByteLevel"], ["Split", "ByteLevel"]):
        raise TokenizerFault(f"splits text in other steps than Qwen2's: {_ADVICE}")
    return {"type": "Sequence", "pretokenizers": kept}


def _step(step: Any) -> dict[str, Any]:
    if isinstance(step, dict) and step.get("type") == "ByteLevel":
        return {
            "type": "ByteLevel",
            "add_prefix_space": step.get("add_prefix_space") is True,
            "trim_offsets": False,
            "use_regex": step.get("use_regex") is not False,
        }
    if isinstance(step, dict) and step.get("type") == "Split":
        pattern = step.get("pattern")
        if isinstance(pattern, dict) and pattern.get("Regex") in _SPLITS and _ISOLATED.items() <= step.items():
            return {"type": "Split", "pattern": pattern, **_ISOLATED}
    raise TokenizerFault(f"splits text by another rule than Qwen2's: {_ADVICE}")


def _model(data: Any) -> tuple[dict[str, int], Any, bool]:
    """Vocabulary, merges, and whether words that the vocabulary has are not merged."""
    if not isinstance(data, dict) or data.get("type") != "BPE":
        raise TokenizerFault(f"is no byte pair encoding: {_ADVICE}")
    if data.get("continuing_subword_prefix") or data.get("end_of_word_suffix"):
        raise TokenizerFault(f"marks parts of words by a prefix or suffix: {_ADVICE}")
    vocab = data.get("vocab")
    if not isinstance(vocab, dict) or not vocab or not all(map(_is_id, vocab.values())):
        raise TokenizerFault(f"has no vocabulary whose ids are whole numbers from 0 to {LARGEST_ID - 1}: {_ADVICE}")
    return vocab, _pairs(_list(data, "merges")), data.get("ignore_merges") is True


def _pairs(merges: list[Any]) -> list[tuple[Any, ...]]:
    """["a", "b"], or "a b" in older files; the library checks that they are two texts of the vocabulary."""
    kinds = set(map(type, merges))
    if kinds <= {str}:
        return [tuple(merge.split(" ")) for merge in merges]
    if kinds <= {list}:
        return list(map(tuple, merges))
    raise TokenizerFault(f"has merges that are no pairs of texts: {_ADVICE}")


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key) or []
    if not isinstance(value, list):
        raise TokenizerFault(f"has {key} that are no list: {_ADVICE}")
    return value


def _is_id(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < LARGEST_ID


def _is_byte_level(decoder: Any) -> bool:
    if not isinstance(decoder, dict):
        return False
    inner = decoder.get("decoders")
    return decoder.get("type") == "ByteLevel" or (
        isinstance(inner, list) and any(isinstance(x, dict) and x.get("type") == "ByteLevel" for x in inner)
    )
