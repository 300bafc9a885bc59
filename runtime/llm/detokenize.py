"""From token ids back to text, piece by piece and never half a character.

Byte-level tokenizers write every byte as one printable character (GPT-2's table). Undoing that per token and feeding
an incremental UTF-8 decoder is exact at any split, which decoding a growing list of ids again and again is not.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable


def _byte_table() -> list[str]:
    """Printable Latin-1 bytes stand for themselves, the others for the characters from U+0100 on, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 256 + others.index(byte)) for byte in range(256)]


BYTE_TO_CHAR = _byte_table()
CHAR_TO_BYTE = {char: byte for byte, char in enumerate(BYTE_TO_CHAR)}


def token_bytes(token: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary stands for; characters outside the table are kept as text."""
    try:
        return bytes(CHAR_TO_BYTE[char] for char in token)
    except KeyError:
        return token.encode()


class StreamDecoder:
    """Text out of token ids as they come; `to_bytes` gives a token's bytes, nothing for special tokens."""

    def __init__(self, to_bytes: Callable[[int], bytes]) -> None:
        self._to_bytes = to_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """What becomes complete with this token, possibly nothing; bytes that are no UTF-8 become U+FFFD."""
        return self._utf8.decode(self._to_bytes(token))

    def finish(self) -> str:
        """What was left incomplete."""
        return self._utf8.decode(b"", final=True)


class StopFilter:
    """Holds back text that may yet become a stop string, and ends at the first one that is complete."""

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Text that is certain to lie before any stop string; sets `stopped` once one is complete."""
        if self.stopped:
            return ""
        self._held += text
        # The first to be complete counts, however the text was cut into pieces.
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._take(min(found)[1])
        return self._take(len(self._held) - self._undecided())

    def finish(self) -> str:
        """What was held back, once no more text will come."""
        return "" if self.stopped else self._take(len(self._held))

    def _undecided(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        longest = min(len(self._held), max((len(stop) - 1 for stop in self._stops), default=0))
        return next((n for n in range(longest, 0, -1) if self._begins_stop(self._held[-n:])), 0)

    def _begins_stop(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stops)

    def _take(self, length: int) -> str:
        taken, self._held = self._held[:length], self._held[length:]
        return taken
