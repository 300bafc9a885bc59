"""The price of rounding a checkpoint's weights to the type of a bundle's graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from storm_edge.export.network.language import LanguageModel
from storm_edge.export.network.temporal import TemporalEncoder
from storm_edge.export.network.vision import VisionEncoder
from storm_edge.export.reference.record import Arrays, ReferenceClip, record_clips
from storm_edge.runtime.bundle.records import Difference, RoundingPrice
from storm_edge.runtime.proof.figures import difference


def rounding_price(
    clips: list[ReferenceClip],
    rounded: Sequence[Arrays],
    vision: VisionEncoder,
    temporal: TemporalEncoder,
    llm: LanguageModel,
    progress: Callable[[str], None] = lambda _: None,
) -> RoundingPrice:
    """Run a model of the checkpoint's own weights on the clips whose records of rounded ones are `rounded`; compare.

    Both are given the rounded model's tokens, so that one early choice does not decide about all later ones.
    """
    forced = [record["greedy"] for record in rounded]
    own = list(record_clips(clips, vision, temporal, llm, len(forced[0]), progress, forced))
    pairs = list(zip(rounded, own, strict=True))
    return RoundingPrice(
        visual_tokens=_worst(difference(a["visual_tokens"], b["visual_tokens"]) for a, b in pairs),
        logits=_worst(difference(a["logits"], b["logits"]) for a, b in pairs),
        tokens=float(np.concatenate([a["greedy"] == b["greedy"] for a, b in pairs]).mean()),
    )


def _worst(differences: Iterable[Difference]) -> Difference:
    """Every figure's worst."""
    all_of = list(differences)
    return Difference(
        cosine=min(d.cosine for d in all_of),
        norm_ratio=max(d.norm_ratio for d in all_of),
        error=max(d.error for d in all_of),
    )
