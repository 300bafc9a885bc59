"""`python -m storm_edge.demo.measure CHECKPOINT`: held-out accuracy in PyTorch, as the tables of docs/accuracy.md.

The clips and questions are those of `storm eval --data demo`, the answers are decoded greedily; batches make it much
faster than asking a built engine one question after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from storm_edge.demo.dataset import TYPES, make_sample
from storm_edge.demo.items import FRAMES, demo_item
from storm_edge.demo.questions import CONTROL_TYPES, TIME_TYPES
from storm_edge.runtime.errors import StormError, UsageError
from storm_edge.runtime.proof.evaluate import Result, Score, is_right, paired


@dataclass(frozen=True)
class Budget:
    """k and side of the two poolings and stride s of the sampling."""

    pool: int
    side: int
    sample: int

    def tokens(self, frames: int, per_frame: int) -> int:
        """Visual tokens of a clip."""
        return ceil(ceil(frames / self.pool) / self.sample) * (per_frame // self.side**2)


TRAINED, WHOLE = Budget(4, 1, 1), Budget(1, 1, 1)
BUDGETS = {
    "all tokens": WHOLE,
    "temporal sampling": Budget(1, 1, 2),
    "temporal pooling": TRAINED,
    "spatial pooling": Budget(1, 2, 1),
    "temporal pooling and sampling": Budget(4, 1, 2),
    "temporal and spatial pooling": Budget(4, 2, 1),
    "temporal and spatial pooling, and sampling": Budget(4, 2, 2),
}
LENGTHS = (8, 16, 32, 64, 128)
TABLES = ("types", "budgets", "lengths")
_BATCH_FRAMES = 480  # frames that pass the tower at once


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(prog="python -m storm_edge.demo.measure", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-n", type=int, default=2000, help="questions a row (default: 2000)")
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=TABLES, help="which to print; default: all")
    parser.add_argument("--lengths", type=int, nargs="*", default=LENGTHS, help="clip lengths")
    parser.add_argument("--without", type=Path, help="a checkpoint trained with --no-temporal, to compare with")
    parser.add_argument("--results", type=Path, help="what `storm eval --data demo -o` wrote, to compare answers with")
    given = parser.parse_args()
    try:
        _measure(given)
    except StormError as e:
        sys.exit(f"error: {e}")


def _measure(given: argparse.Namespace) -> None:
    ask = Asker(given.checkpoint)
    if "types" in given.tables:
        for frames in (16, 32):
            _print_types(frames, ask(frames, given.n, [TRAINED])[0])
    if "budgets" in given.tables:
        _print_budgets(32, ask.per_frame, ask(32, given.n, BUDGETS.values()))
    if "lengths" in given.tables:
        _print_lengths({frames: ask(frames, given.n, [TRAINED])[0] for frames in given.lengths})
    if given.without:
        bare = Asker(given.without)
        for frames in (16, 32):
            pair = [TRAINED, WHOLE]
            _print_without(frames, bare(frames, given.n, pair), ask(frames, given.n, pair))
    if given.results:
        _print_agreement(given.results, lambda n: ask(FRAMES, n, [TRAINED])[0])


class Asker:
    """A checkpoint that answers; `per_frame` visual tokens come from a frame."""

    def __init__(self, checkpoint: Path) -> None:
        from storm_edge.demo.training.checkpoints import read_checkpoint

        self._model, self._questioner = read_checkpoint(checkpoint)
        self.per_frame = self._model.config.tokens_per_frame
        self._known: dict[tuple[int, int, Budget], list[Result]] = {}

    def __call__(self, frames: int, n: int, budgets: Iterable[Budget]) -> list[list[Result]]:
        """The answers to the first `n` test items, by budget; a budget that was asked for before is not asked again."""
        from storm_edge.demo.training.answering import answers, encode

        wanted = list(budgets)
        missing = [b for b in wanted if (frames, n, b) not in self._known]
        found: dict[Budget, list[Result]] = {b: [] for b in missing}
        size, batch = self._model.config.vision.image_size, max(1, _BATCH_FRAMES // frames)
        for begin in range(0, n if missing else 0, batch):
            seeds = range(begin, min(begin + batch, n))
            many = [make_sample(i, frames=frames, size=size, kind=TYPES[i % len(TYPES)]) for i in seeds]
            items = [demo_item(i, s) for i, s in zip(seeds, many, strict=True)]
            mixed = encode(self._model, [s.frames for s in many])
            for b in missing:
                visual = self._model.reduce(mixed, b.pool, b.side, b.sample)
                said = answers(self._model, self._questioner, visual, [s.question for s in many])
                found[b] += [
                    Result(item.id, item.type, item.answer, text, is_right(item, text))
                    for item, text in zip(items, said, strict=True)
                ]
        self._known |= {(frames, n, b): given for b, given in found.items()}
        return [self._known[frames, n, b] for b in wanted]


def _group(answers: Sequence[Result], prefix: str) -> list[bool]:
    return [a.right for a in answers if a.type.startswith(prefix)]


def _cell(right: Sequence[bool]) -> str:
    score = Score.of(sum(right), len(right))
    return f"{score.accuracy:.1%} ({score.low:.1%} - {score.high:.1%})"


def _difference(first: Sequence[bool], second: Sequence[bool]) -> str:
    middle, low, high = paired(first, second)
    return f"{100 * middle:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _print_types(frames: int, answers: Sequence[Result]) -> None:
    print(f"\n| {frames} frames, k = 4 | questions | right |\n|---|---|---|")
    for name in ("time", *(f"time/{k}" for k in TIME_TYPES), "control", *(f"control/{k}" for k in CONTROL_TYPES)):
        right = _group(answers, name)
        print(f"| {name} | {len(right)} | {_cell(right)} |", flush=True)


def _print_budgets(frames: int, per_frame: int, found: Sequence[Sequence[Result]]) -> None:
    print(f"\n| {frames} frames | tokens | share | time questions | points against all tokens | controls |")
    print("|---|---|---|---|---|---|")
    whole = _group(found[0], "time")
    for (name, budget), answers in zip(BUDGETS.items(), found, strict=True):
        tokens, timed = budget.tokens(frames, per_frame), _group(answers, "time")
        row = f"| {name} | {tokens} | {tokens / frames / per_frame:.2%} | {_cell(timed)} |"
        print(f"{row} {_difference(whole, timed)} | {_cell(_group(answers, 'control'))} |", flush=True)


def _print_lengths(found: dict[int, list[Result]]) -> None:
    print("\n| frames, k = 4 | time questions | controls |\n|---|---|---|")
    for frames, answers in found.items():
        print(f"| {frames} | {_cell(_group(answers, 'time'))} | {_cell(_group(answers, 'control'))} |", flush=True)


def _print_without(frames: int, bare: Sequence[Sequence[Result]], whole: Sequence[Sequence[Result]]) -> None:
    print(f"\n| {frames} frames | without temporal encoder | with | difference in points |\n|---|---|---|---|")
    for name, a, b in zip(("pooled, k = 4", "not pooled"), bare, whole, strict=True):
        for kind in ("time", *(f"time/{k}" for k in TIME_TYPES), "control"):
            first, second = _group(a, kind), _group(b, kind)
            print(f"| {name}: {kind} | {_cell(first)} | {_cell(second)} | {_difference(first, second)} |", flush=True)


def _print_agreement(path: Path, ask: Callable[[int], list[Result]]) -> None:
    try:
        about, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        name, engine = about["engine"], {row["id"]: row["predicted"] for row in rows}
        same = [engine[a.id] == a.predicted for a in ask(len(rows))]
    except (OSError, ValueError, LookupError, TypeError) as e:
        again = f"write it with `storm eval BUNDLE --data demo --frames {FRAMES} -o {path}`"
        raise UsageError(
            f"{path} does not hold answers to the demo's questions at {FRAMES} frames ({e}): {again}."
        ) from e
    print(f"\nEngine {name} and PyTorch give the same answer to {sum(same)} of {len(same)} questions.")


if __name__ == "__main__":
    main()
