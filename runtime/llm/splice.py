"""A prompt with visual tokens between its ids, and its embeddings in one piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.sessions.base import beside

Float32Array = npt.NDArray[np.float32]
Embed = Callable[[Sequence[int]], Float32Array]  # ids -> [len(ids), D], in host memory or on the device


@dataclass(frozen=True, eq=False)
class SplicedPrompt:
    """Ids, visual tokens `rows` [n, D] where the generator's `visual_rows` left them, and ids.

    `video` is a number that only prompts with the same rows have. `continues` says that what stands after the rows goes
    on from an earlier prompt, and may be computed from there; a question by itself is computed from its beginning,
    because its last bits would depend on what was asked before.
    """

    before: Sequence[int]
    rows: Float32Array
    after: Sequence[int]
    video: int = 0
    continues: bool = False

    @property
    def keys(self) -> list[int]:
        """One number a position: text's is its token id, a visual token's a negative one that no other video has."""
        visual = range(-(self.video << 32), -(self.video << 32) - len(self.rows), -1)
        return [*self.before, *visual, *self.after]


def splice(embed: Embed, prompt: SplicedPrompt) -> Float32Array:
    """The whole prompt's embeddings [S, D]."""
    return np.concatenate([embed(prompt.before), prompt.rows, embed(prompt.after)])


def flatten_visual(embed: Embed, visual: Float32Array, newline: int | None) -> Float32Array:
    """Visual tokens (1, F, n, D) of F pooled frames as rows of the prompt (F * n, D), where `embed` puts its own.

    With `newline` the embedding of that token follows every frame's tokens.
    """
    frames: Float32Array = beside(visual[0], embed([0]))  # (F, n, D)
    if newline is not None:
        rows = np.broadcast_to(embed([newline]), (len(frames), 1, frames.shape[-1]))
        frames = np.concatenate([frames, rows], axis=1)
    return frames.reshape(-1, frames.shape[-1])
