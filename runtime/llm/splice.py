"""A prompt with visual tokens between its ids, and its embeddings in one piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from storm_edge.runtime.sessions.device import Device, Tensor

Embed = Callable[[Sequence[int]], Tensor]  # ids -> [len(ids), D], on the language model's device


@dataclass(frozen=True, eq=False)
class SplicedPrompt:
    """Ids, visual tokens `rows` [n, D] where the generator's `visual_rows` left them, and ids.

    `video` is a number that only prompts with the same rows have. `continues` says that what stands after the rows goes
    on from an earlier prompt, and may be computed from there; a question by itself is computed from its beginning,
    because its last bits would depend on what was asked before.
    """

    before: Sequence[int]
    rows: Tensor
    after: Sequence[int]
    video: int = 0
    continues: bool = False

    @property
    def keys(self) -> list[int]:
        """One number a position: text's is its token id, a visual token's a negative one that no other video has."""
        visual = range(-(self.video << 32), -(self.video << 32) - len(self.rows), -1)
        return [*self.before, *visual, *self.after]


def splice(device: Device, embed: Embed, prompt: SplicedPrompt) -> Tensor:
    """The whole prompt's embeddings [S, D], on the device."""
    joined: Tensor = device.concatenate([embed(prompt.before), prompt.rows, embed(prompt.after)])
    return joined


def flatten_visual(device: Device, embed: Embed, visual: Tensor, newline: int | None) -> Tensor:
    """Visual tokens (1, F, n, D) of F pooled frames, on the device, as rows of the prompt (F * n, D).

    With `newline` the embedding of that token follows every frame's tokens.
    """
    _, count, each, width = visual.shape
    frames = visual[0]  # (F, n, D)
    if newline is not None:
        frames = device.empty((count, each + 1, width), "float32")
        device.write(frames[:, :each], visual[0])
        device.write(frames[:, each:], embed([newline])[None])
    rows: Tensor = device.reshape(frames, (-1, width))
    return rows
