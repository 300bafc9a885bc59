"""The tokens of a clip on their way from vision to the temporal encoder, held once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from storm_edge.runtime.sessions.device import Device, Tensor


@dataclass(frozen=True)
class LongClips:
    """How clips of more than `above` frames, whole groups, are held: float32 tokens as `dtype`, "" for as they come.

    Where nobody knows how long a clip will be, room is made for `block` frames at a time.
    """

    above: int
    block: int
    dtype: str = ""


class ClipTokens:
    """Tokens (T, N, D) in blocks, so that room for more needs no copy of those that are there."""

    def __init__(self, device: Device, group: int, frames: int | None = None, long: LongClips | None = None) -> None:
        """`group` frames are pooled together; `frames` is how many will come, as far as that is known."""
        self._device, self._group, self._expected, self._long = device, group, frames or 0, long
        self._blocks: list[Tensor] = []  # each (n, N, D), n whole groups
        self._room = 0  # frames of all blocks
        self._narrow = ""  # the type that takes the place of float32
        self.count = 0

    def add(self, tokens: Tensor) -> None:
        """Take the tokens (n, N, D) of the next frames."""
        long = self._long
        if long and long.dtype != self._narrow and max(self.count + len(tokens), self._expected) > long.above:
            self._narrow = long.dtype
            for i, block in enumerate(self._blocks):
                self._blocks[i] = self._empty(len(block), block)
                self._device.write(self._blocks[i], block)
        while len(tokens):
            if self.count == self._room:
                self._grow(tokens)
            block = self._blocks[-1]
            free = self._room - self.count
            new = tokens[:free]
            self._device.write(block[len(block) - free :][: len(new)], new)
            self.count += len(new)
            tokens = tokens[free:]

    def last(self) -> Tensor:
        """The tokens (1, N, D) of the frame that was added last; raises ValueError where none was."""
        if not self._blocks:
            raise ValueError("no frames were added")
        filled = len(self._blocks[-1]) - (self._room - self.count)
        tokens: Tensor = self._blocks[-1][filled - 1 : filled]
        return tokens

    def blocks(self) -> list[Tensor]:
        """All of them in order, whole groups: the last frame is repeated until its group is full.

        Raises ValueError where nothing was added.
        """
        repeated, last = self.last(), self._blocks[-1]
        filled = len(last) - (self._room - self.count)
        full = self._whole_groups(filled)
        if full > filled:
            self._device.write(last[filled:full], repeated)
        return [*self._blocks[:-1], last[:full]]

    def _grow(self, tokens: Tensor) -> None:
        more = self._long.block if self._long else max(self.count, len(tokens))
        frames = self._whole_groups(max(self._expected - self.count, more))
        self._blocks.append(self._empty(frames, tokens))
        self._room += frames

    def _empty(self, frames: int, like: Tensor) -> Tensor:
        narrowed: Any = self._narrow if self._narrow and like.dtype == "float32" else like.dtype
        room: Tensor = self._device.empty((frames, *like.shape[1:]), narrowed)
        return room

    def _whole_groups(self, frames: int) -> int:
        return -(-frames // self._group) * self._group
