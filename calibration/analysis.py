"""`storm calibrate --analyze`: which clips, which loss, and which scheme the layers are measured in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from storm_edge.calibration.acceptance import Acceptance, fit
from storm_edge.calibration.counting import Clips, Frames
from storm_edge.calibration.decoder import fp32_decoder, load_llm
from storm_edge.calibration.graphs import Scales
from storm_edge.calibration.losses import AnswerLoss, Loss, Probe, TokenLoss
from storm_edge.calibration.sensitivity import Sensitivity, analyze
from storm_edge.calibration.switched import SwitchedEncoders
from storm_edge.runtime.bundle.calibration import Range, Scheme
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.errors import BuildError

Asked = Callable[[], Iterable[tuple[Frames, str]]]  # clips uint8 [T, H, W, 3] with a question each


@dataclass(frozen=True)
class Analysis:
    """How to analyze: `max_loss` bounds the loss of what is chosen, None chooses everything, "auto" the
    most that verification accepts.

    `scheme` is "int8" or "fp8", as TensorRT computes them. The loss is that of the visual tokens of the first `clips`
    clips, or with `asked` that of the answers to the first `clips` questions.
    """

    scheme: Scheme = "int8"
    max_loss: float | Literal["auto"] | None = None
    clips: int = 4
    asked: Asked | None = None

    def run(
        self,
        bundle: Bundle,
        clips: Clips,
        ranges: Mapping[Stage, Mapping[str, Range]],
        scales: Scales,
        multiplications: Mapping[Stage, Mapping[str, int]],
        budget: float,
        threads: int | None,
        detail: Callable[[str], None],
    ) -> Sensitivity:
        """Measure; `budget` is the share of verification's limits that "auto" may use up.

        Raises BuildError where no layer fits into `max_loss`, or there are no questions.
        """
        with SwitchedEncoders(bundle, ranges, self.scheme, scales, threads) as encoders:
            if self.asked is None:
                probe = Probe(encoders, list(islice(clips(), self.clips)))
                loss: Loss = TokenLoss(probe.reference)
                number = self.clips
            else:
                asked = list(islice(self.asked(), self.clips))
                if not asked:
                    raise BuildError("the data has no questions: leave --questions out, or add a .jsonl file.")
                probe = Probe(encoders, [clip for clip, _ in asked])
                llm = fp32_decoder(bundle, threads)
                loss = AnswerLoss(bundle, llm, [question for _, question in asked], probe.reference)
                number = len(asked)
            found = analyze(
                encoders,
                probe,
                loss,
                {(stage, node): x for stage, of_stage in multiplications.items() for node, x in of_stage.items()},
                clips=number,
                max_loss=None if self.max_loss == "auto" else self.max_loss,
                detail=detail,
            )
            if self.max_loss != "auto":
                return found
            acceptance = Acceptance(bundle, encoders, self.scheme, load_llm(bundle, threads))
            chosen = frozenset(fit([layer.key for layer in found.layers], acceptance, budget, detail))
            if not chosen:
                raise BuildError(
                    f"no --max-loss helps: with any layer in {self.scheme} the encoders use up more than {budget:g} of"
                    " what `storm verify` allows; build with --precision fp16 or fp32, which need no calibration."
                )
            share = sum(layer.share for layer in found.layers if layer.key in chosen)
            cost = loss(probe.visual(chosen))
            return replace(found, chosen=chosen, chosen_share=share, chosen_loss=cost, max_loss=cost)
