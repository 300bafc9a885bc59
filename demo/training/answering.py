"""Greedy answers of the network in training, many clips at once: what `storm eval` measures, in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from storm_edge.demo.questions import Question
from storm_edge.demo.training.batches import Questioner
from storm_edge.demo.training.model import StormModel
from storm_edge.runtime.proof.evaluate import MAX_TOKENS


@torch.no_grad()
def encode(model: StormModel, clips: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
    """Tokens behind the temporal layers (batch, T, N, D) of clips [T, H, W, 3] of one length."""
    return model.mix(model.see(torch.stack([torch.from_numpy(clip) for clip in clips])))


@torch.no_grad()
def answers(model: StormModel, questioner: Questioner, visual: Tensor, questions: Sequence[Question]) -> list[str]:
    """The answers to one question a clip; visual (batch, V, D)."""
    device = visual.device
    before = torch.tensor(questioner.before, device=device)
    written = [list(questioner(q)[0]) for q in questions]
    begun = [len(ids) for ids in written]
    open_rows = set(range(len(written)))
    for _ in range(MAX_TOKENS):
        length = max(map(len, written))
        text = torch.zeros(len(written), length, dtype=torch.int64, device=device)
        segments, last = torch.zeros_like(text), torch.zeros_like(text, dtype=torch.bool)
        for i, ids in enumerate(written):
            text[i, : len(ids)] = torch.tensor(ids, device=device)
            segments[i, : len(ids)] = 1
            last[i, len(ids) - 1] = True
        chosen = model.answer_logits(visual, before, text, segments, last).argmax(-1).tolist()
        for i in sorted(open_rows):
            if chosen[i] in questioner.prompt.eos_ids:
                open_rows.remove(i)
            else:
                written[i].append(chosen[i])
        if not open_rows:
            break
    return [questioner.prompt.decode(ids[n:]).strip() for ids, n in zip(written, begun, strict=True)]
