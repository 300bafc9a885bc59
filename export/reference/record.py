"""The reference record: what PyTorch makes of a few clips in fp32, stage by stage, of the weights the graphs hold.

`storm verify` compares every engine with it, on any machine, without PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from storm_edge.export.network.language import LanguageModel
from storm_edge.export.network.temporal import TemporalEncoder
from storm_edge.export.network.vision import VisionEncoder
from storm_edge.runtime.llm.newline import Newline

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ReferenceClip:
    """A clip to record: frames uint8 (frames, H, W, 3), and its prompt as token ids around the video.

    `newline` says where line ends stand among the visual tokens; they are `line_end` (D,), or else that token's row.
    """

    frames: NDArray[np.uint8]
    before: list[int]
    after: list[int]
    newline: Newline | None = None
    line_end: Tensor | None = None


def record_clips(
    clips: list[ReferenceClip],
    vision: VisionEncoder,
    temporal: TemporalEncoder,
    llm: LanguageModel,
    steps: int,
    progress: Callable[[str], None] = lambda _: None,
    forced: Sequence[NDArray[np.int64]] | None = None,
) -> Iterator[Arrays]:
    """Run every clip through the whole model and generate `steps` tokens; yields its stage outputs.

    `forced` has the tokens of every clip that are fed instead of those that are chosen.

    Keys: frames, before, after, newline, tokens [frames, N, D], visual_tokens [1, frames / k, N / p, D], logits
    [steps, vocabulary] (of the prompt's last position, then of every generated token but the last), greedy [steps].
    End-of-sequence is generated like any other token, so every clip has all its steps.
    """
    for number, clip in enumerate(clips, 1):
        label = f"reference clip {number} of {len(clips)}"
        with torch.no_grad():
            progress(f"{label}, vision and temporal")
            tokens = vision(torch.from_numpy(clip.frames))  # (frames, N, D)
            visual = temporal(tokens[None])  # (1, frames / k, N / p, D)
            progress(f"{label}, {steps} tokens")
            fed = None if forced is None else torch.from_numpy(forced[number - 1])
            logits, greedy = _generate(llm, _prompt(llm, clip, visual), steps, fed)
        yield {
            "frames": clip.frames,
            "before": np.array(clip.before, dtype=np.int64),
            "after": np.array(clip.after, dtype=np.int64),
            "newline": np.array([] if clip.newline is None else [clip.newline.token], dtype=np.int64),
            "tokens": tokens.numpy(),
            "visual_tokens": visual.numpy(),
            "logits": logits.numpy(),
            "greedy": greedy.numpy(),
        }


def _prompt(llm: LanguageModel, clip: ReferenceClip, visual: Tensor) -> Tensor:
    """Embeddings of the prompt with the visual tokens spliced in, (1, length, D)."""
    embed = llm.get_input_embeddings()
    before, after = (embed(torch.tensor([ids], dtype=torch.int64)) for ids in (clip.before, clip.after))
    rows = visual.flatten(1, 2)  # (1, frames / k * N / p, D)
    if clip.newline is not None:
        line_end = embed(torch.tensor(clip.newline.token)) if clip.line_end is None else clip.line_end
        lines = rows.reshape(1, -1, clip.newline.every or rows.shape[1], rows.shape[2])  # (1, lines, tokens, D)
        rows = torch.cat([lines, line_end.expand(1, lines.shape[1], 1, -1)], dim=2).flatten(1, 2)
    return torch.cat([before, rows, after], dim=1)


def _generate(llm: LanguageModel, embeds: Tensor, steps: int, fed: Tensor | None) -> tuple[Tensor, Tensor]:
    """Greedy decoding: logits (steps, vocabulary) and the ids they choose (steps,); `fed` goes on with other ids."""
    logits, chosen = [], []
    cache = None
    for step in range(steps):
        output = llm(inputs_embeds=embeds, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        logits.append(output.logits[0, -1])
        chosen.append(output.logits[0, -1].argmax())
        following = chosen[-1] if fed is None else fed[step]
        embeds = llm.get_input_embeddings()(following[None, None])
    return torch.stack(logits), torch.stack(chosen)
