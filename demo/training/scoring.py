"""Quick accuracy on held-out clips while training: is every token of the answer the likeliest one?"""

from __future__ import annotations

from collections import defaultdict

import torch

from storm_edge.demo.dataset import TYPES, make_sample
from storm_edge.demo.training.batches import Questioner
from storm_edge.demo.training.model import StormModel


@torch.no_grad()
def score(
    model: StormModel,
    questioner: Questioner,
    *,
    frames: int,
    clips: int,
    batch: int = 30,
    pool: int = 4,
    side: int = 1,
    sample: int = 1,
    first: int,
) -> dict[str, float]:
    """Share of right answers by question type over `clips` test clips, seeds from `first` on.

    Teacher-forced: an answer is right if greedy decoding would give exactly it.
    """
    right: defaultdict[str, int] = defaultdict(int)
    asked: defaultdict[str, int] = defaultdict(int)
    device = next(model.parameters()).device
    before = torch.tensor(questioner.before, device=device)
    for begin in range(0, clips, batch):
        many = [
            make_sample(first + i, frames=frames, size=model.config.vision.image_size, kind=TYPES[i % len(TYPES)])
            for i in range(begin, min(begin + batch, clips))
        ]
        pictures = torch.stack([torch.from_numpy(s.frames) for s in many]).to(device)
        visual = model.reduce(model.mix(model.see(pictures)), pool, side, sample)
        pairs = [questioner(s.question) for s in many]
        length = max(len(a) + len(b) - 1 for a, b in pairs)
        text = torch.zeros(len(many), length, dtype=torch.int64)
        segments = torch.zeros_like(text)
        targets = torch.full_like(text, -1)
        for i, (prompt, answer) in enumerate(pairs):
            ids = [*prompt, *answer[:-1]]
            text[i, : len(ids)], segments[i, : len(ids)] = torch.tensor(ids), 1
            targets[i, len(prompt) - 1 : len(ids)] = torch.tensor(answer)
        text, segments, targets = (t.to(device) for t in (text, segments, targets))
        wanted = targets >= 0
        hit = torch.ones_like(wanted)
        hit[wanted] = model.answer_logits(visual, before, text, segments, wanted).argmax(-1) == targets[wanted]
        for s, good in zip(many, hit.all(1).tolist(), strict=True):
            asked[s.question.type] += 1
            right[s.question.type] += good
    return {kind: right[kind] / asked[kind] for kind in asked}
