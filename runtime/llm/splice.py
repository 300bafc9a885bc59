"""A prompt with visual tokens between its ids, and its embeddings in one piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from storm_edge.runtime.llm.newline import Newline
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


def flatten_visual(device: Device, embed: Embed, visual: Tensor, newline: Newline | None) -> Tensor:
    """Visual tokens (1, F, n, D) of F pooled frames, on the device, as rows of the prompt, line ends among them."""
    rows: Tensor = device.reshape(visual[0], (-1, visual.shape[3]))  # (F * n, D)
    if newline is None:
        return rows
    every = newline.every or len(rows)
    lines = device.reshape(rows, (-1, every, rows.shape[1]))
    room = device.empty((len(lines), every + 1, rows.shape[1]), "float32")
    device.write(room[:, :every], lines)
    device.write(room[:, every:], embed([newline.token])[None])
    ended: Tensor = device.reshape(room, (-1, rows.shape[1]))
    return ended
