"""`storm eval`: how often an engine answers right, by type of question.

Where the questions come from is the caller's: a stream of `Item`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storm_edge.runtime.answer.pipeline import Pipeline, Video
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.proof.result_log import ResultLog
from storm_edge.runtime.video.reading import VideoSource

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_Z95 = 1.959963984540054  # of a normal distribution's middle 95%
MAX_TOKENS = 32  # of an answer


@dataclass(frozen=True, eq=False)
class Item:
    """A question about a video. Consecutive items with the same `video` object or path share its encoding.

    `choices` make it multiple choice; `answer` is then one of them. A type "a/b" also counts for the group "a".
    """

    id: str
    video: VideoSource
    question: str
    answer: str
    type: str
    choices: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """What the model is asked: with choices, in the form that video benchmarks use."""
        if not self.choices:
            return self.question
        options = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, self.choices, strict=False))
        return f"{self.question}{options}\nAnswer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Result:
    """What came of one item."""

    id: str
    type: str
    expected: str
    predicted: str
    right: bool


@dataclass(frozen=True)
class Score:
    """Right answers of `asked`, as a share with its 95% interval (Wilson)."""

    right: int
    asked: int
    accuracy: float
    low: float
    high: float

    @classmethod
    def of(cls, right: int, asked: int) -> Score:
        """Score of counts; of no questions at all, the interval is everything."""
        if not asked:
            return cls(0, 0, math.nan, 0.0, 1.0)
        return cls(right, asked, right / asked, *wilson(right, asked))


def wilson(right: int, asked: int) -> tuple[float, float]:
    """The 95% interval of a share. Source: Wilson, "Probable inference", JASA 22 (1927)."""
    share, spread = right / asked, _Z95**2 / asked
    middle = (share + spread / 2) / (1 + spread)
    half = _Z95 / (1 + spread) * math.sqrt(share * (1 - share) / asked + spread / 4 / asked)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired(first: Sequence[bool], second: Sequence[bool]) -> tuple[float, float, float]:
    """By how much `second` is right more often than `first` on the same questions: the difference of the two shares and
    its 95% interval. Source: Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", JEBS 37 (2012).
    """
    n = len(first)
    won = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    gain, loss = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = _Z95 * math.sqrt((gain + loss - (gain - loss) ** 2) / (n + 2))
    return (won - lost) / n, max(-1.0, gain - loss - half), min(1.0, gain - loss + half)


def is_right(item: Item, predicted: str) -> bool:
    """Whether a prediction is the item's answer: the letter or text of the right choice, or the same words."""
    if not item.choices or _plain(predicted) in map(_plain, item.choices):
        return _plain(predicted) == _plain(item.answer)
    letter = re.match(r"\s*(?:answer\s*:?\s*)?\(?([A-Z])(?:[).:,\s]|$)", predicted, re.IGNORECASE)
    if letter and LETTERS.index(letter[1].upper()) < len(item.choices):
        return item.choices[LETTERS.index(letter[1].upper())] == item.answer
    return False


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!")


def answer_items(pipeline: Pipeline, items: Iterable[Item], **how: Any) -> Iterator[Result]:
    """Ask each item by itself, greedily; `how` its video is opened is told in the words of `Pipeline.open`."""
    opened: tuple[Any, Video] | None = None
    for item in items:
        if opened is None or not _same(opened[0], item.video):
            opened = item.video, pipeline.open(item.video, **how)
        answer = opened[1].ask(item.prompt, SamplingOptions(max_tokens=MAX_TOKENS)).read().strip()
        yield Result(item.id, item.type, item.answer, answer, is_right(item, answer))


def _same(a: VideoSource, b: VideoSource) -> bool:
    return a is b or (isinstance(a, str | Path) and isinstance(b, str | Path) and Path(a) == Path(b))


def evaluate(
    pipeline: Pipeline,
    items: Iterable[Item],
    *,
    log: ResultLog | None = None,
    progress: Callable[[Result], None] = lambda _: None,
    **how: Any,
) -> list[Result]:
    """Answer all items, as `answer_items` does; with `log`, those it holds are not asked again.

    Raises what `Pipeline.open` raises.
    """
    done = {} if log is None else {row["id"]: Result(**row) for row in log.rows}
    asked: list[str] = []

    def waiting() -> Iterator[Item]:
        for item in items:
            asked.append(item.id)
            if item.id not in done:
                yield item

    for result in answer_items(pipeline, waiting(), **how):
        done[result.id] = result
        if log is not None:
            log.append(asdict(result))
        progress(result)
    return [done[i] for i in asked]


def scores(results: Iterable[Result]) -> tuple[Score, dict[str, Score]]:
    """Over everything, and by type and group of types."""
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for result in results:
        group, slash, _ = result.type.partition("/")
        for key in {"", result.type, group if slash else ""}:
            counts[key][0] += result.right
            counts[key][1] += 1
    overall = Score.of(*counts.pop("", [0, 0]))
    return overall, {kind: Score.of(*counts[kind]) for kind in sorted(counts)}
