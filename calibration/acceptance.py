"""How much of what `storm verify` allows is used up by encoders with any set of layers quantized.

Measured on the bundle's reference clips with the code that verifies engines, so what is accepted here passes there:
each stage given the reference's input, then the chain from frames to visual tokens, and from those to logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence

from storm_edge.calibration.switched import Float32, Key, SwitchedEncoders
from storm_edge.runtime.bundle.calibration import Scheme
from storm_edge.runtime.bundle.engine import CheckResult
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.reference import read_clip
from storm_edge.runtime.llm.base import Generator
from storm_edge.runtime.proof.verify import LIMITS, check_decoder, compare, label_of, prompt_rows

Keys = frozenset[Key]
# Of the limits on logits: the rest is for the language model's own precision, which an engine adds and is fp32 here.
_OF_LOGITS = 0.5


class Acceptance:
    """Switched encoders on the reference clips of their bundle; `llm` None leaves the logits out."""

    def __init__(
        self, bundle: Bundle, encoders: SwitchedEncoders, scheme: Scheme, llm: Callable[[], Generator] | None
    ) -> None:
        self._bundle, self._encoders, self._llm = bundle, encoders, llm
        self._limits = LIMITS["fp8" if scheme == "fp8" else "int8"]
        self._clips = [(label_of(name), read_clip(bundle, name)) for name in bundle.manifest.clips]
        self._known: dict[tuple[str, int, Keys], float] = {}
        self._first: tuple[Keys, Float32] | None = None  # vision's tokens of the first clip, by the set that made them

    def used(self, quantized: Collection[Key], enough: float = math.inf) -> float:
        """The largest share of a limit that a figure uses up, 1 being all of it; it is not looked beyond `enough`.

        Layers of one stage are measured once, whatever is quantized in the other.
        """
        vision, temporal = (frozenset(k for k in quantized if k[0] == stage) for stage in ("vision", "temporal"))
        steps = [("vision", i, vision) for i in range(len(self._clips))]
        steps += [("temporal", i, temporal) for i in range(len(self._clips))]
        steps += [("chain", 0, vision | temporal), ("chain decoder", 0, vision | temporal)] if self._clips else []
        worst = 0.0
        for step in steps:
            if step not in self._known:
                allowed = _OF_LOGITS if step[0] == "chain decoder" else 1.0
                self._known[step] = max((_share(row) / allowed for row in self._rows(*step)), default=0.0)
            worst = max(worst, self._known[step])
            if worst > enough:
                break
        return worst

    def _rows(self, stage: str, i: int, quantized: Keys) -> Iterator[CheckResult]:
        label, clip = self._clips[i]
        if stage == "vision":
            yield from compare(label, stage, self._tokens(i, quantized), clip["tokens"], self._limits)
        elif stage == "temporal":
            visual = self._encoders.temporal(clip["tokens"], quantized)
            yield from compare(label, stage, visual, clip["visual_tokens"], self._limits)
        else:
            tokens = self._tokens(i, frozenset(key for key in quantized if key[0] == "vision"))
            visual = self._encoders.temporal(tokens, quantized)
            if stage == "chain":
                yield from compare(label, stage, visual, clip["visual_tokens"], self._limits)
            elif self._llm is not None:
                llm = self._llm()
                rows = prompt_rows(self._bundle, llm, clip, visual)
                yield from check_decoder(llm, label, stage, clip, rows, self._limits)

    def _tokens(self, i: int, quantized: Keys) -> Float32:
        """A clip's tokens; the first clip's are kept for the chain."""
        if i == 0 and self._first is not None and self._first[0] == quantized:
            return self._first[1]
        tokens = self._encoders.vision(self._clips[i][1]["frames"], quantized)
        if i == 0:
            self._first = (quantized, tokens)
        return tokens


def fit(ranked: Sequence[Key], acceptance: Acceptance, budget: float, detail: Callable[[str], None]) -> list[Key]:
    """The layers that are within the budget together, more or less the most; none where none fits.

    Everything is tried at once first. What fails is halved, and each half tried with what was taken before, down to
    single layers: k layers that must stay among n cost about 2 k log2(n / k) measurements.
    """

    def fits(keys: Sequence[Key]) -> bool:
        detail(f"{len(keys)} of {len(ranked)} layers against the reference")
        return acceptance.used(keys, budget) <= budget

    chosen: list[Key] = []
    waiting = [list(ranked)]
    while waiting:
        group = waiting.pop()
        if fits([*chosen, *group]):
            chosen += group
        elif len(group) == len(ranked) and not fits([]):
            break  # what fails without a layer in integers fails with any
        elif len(group) > 1:
            middle = len(group) // 2
            waiting += [group[middle:], group[:middle]]
    return chosen


def _share(row: CheckResult) -> float:
    """How much of its limit a figure uses up; NaN is infinitely much."""
    from_one = row.metric in ("cosine", "greedy tokens")
    share = (1 - row.value) / (1 - row.limit) if from_one else row.value / row.limit
    return share if share == share else math.inf
