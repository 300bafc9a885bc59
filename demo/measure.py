"""`python -m storm_edge.demo.measure CHECKPOINT`: held-out accuracy in PyTorch by token budget and by clip length.

Batched, so much faster than `storm eval`, which measures a built engine; prints the tables of docs/accuracy.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from storm_edge.demo.questions import CONTROL_TYPES, TIME_TYPES
from storm_edge.runtime.evaluate import wilson

# name -> k, side of spatial pooling, sampling stride
BUDGETS = {
    "all tokens": (1, 1, 1),
    "temporal sampling": (1, 1, 2),
    "temporal pooling": (4, 1, 1),
    "spatial pooling": (1, 2, 1),
    "temporal pooling and sampling": (4, 1, 2),
    "temporal and spatial pooling": (4, 2, 1),
    "temporal, spatial pooling and sampling": (4, 2, 2),
}
LENGTHS = (8, 16, 32, 64, 128)


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(prog="python -m storm_edge.demo.measure", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-n", type=int, default=1000, help="questions a row")
    parser.add_argument("--frames", type=int, default=32, help="of the clips of the first table")
    parser.add_argument("--lengths", type=int, nargs="*", default=LENGTHS, help="clip lengths of the second table")
    given = parser.parse_args()

    from storm_edge.demo.training.checkpoints import read_checkpoint
    from storm_edge.demo.training.scoring import score

    model, questioner = read_checkpoint(given.checkpoint)
    per_frame = model.config.tokens_per_frame
    print(f"| {given.frames} frames | tokens | share | time questions | controls |\n|---|---|---|---|---|")
    for name, (pool, side, sample) in BUDGETS.items():
        found = score(
            model, questioner, frames=given.frames, clips=given.n, pool=pool, side=side, sample=sample, first=0
        )
        tokens = -(-(given.frames // pool) // sample) * (per_frame // side**2)
        share = tokens / (given.frames * per_frame)
        print(f"| {name} | {tokens} | {share:.2%} | {_row(found, given.n)} |", flush=True)
    print("\n| frames | time questions | controls |\n|---|---|---|")
    for frames in given.lengths:
        found = score(model, questioner, frames=frames, clips=given.n, first=0, batch=max(1, 480 // frames))
        print(f"| {frames} | {_row(found, given.n)} |", flush=True)


def _row(found: dict[str, float], n: int) -> str:
    return " | ".join(_cell(found, kinds, n) for kinds in (TIME_TYPES, CONTROL_TYPES))


def _cell(found: dict[str, float], kinds: tuple[str, ...], n: int) -> str:
    """Accuracy over the types with its interval; the types take turns, so each has its share of the questions."""
    asked = n * len(kinds) // (len(TIME_TYPES) + len(CONTROL_TYPES))
    share = sum(found[k] for k in kinds) / len(kinds)
    low, high = wilson(round(share * asked), asked)
    return f"{share:.1%} ({low:.1%} - {high:.1%})"


if __name__ == "__main__":
    main()
