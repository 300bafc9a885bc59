"""How far one tensor is from another, in three figures, because each alone can be fooled.

Cosine ignores scale, the norm ratio ignores direction, both ignore a single wrong element.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from storm_edge.runtime.bundle.records import Difference, ReferenceSpec


def difference(ours: NDArray[Any], theirs: NDArray[Any]) -> Difference:
    """The figures of `ours` beside `theirs`, of equal shapes; a NaN in either gives NaN."""
    a, b = ours.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    return Difference(
        cosine=float(a @ b) / max(norms[0] * norms[1], 1e-300),
        norm_ratio=abs(norms[0] / max(norms[1], 1e-300) - 1),
        error=float(np.abs(a - b).max()) / max(float(np.abs(b).max()), 1e-300),
    )


def describe_reference(reference: ReferenceSpec) -> list[str]:
    """Which weights a bundle's reference was made of, and what rounding them cost: a line each."""
    price = reference.rounding
    if price is None:
        return [f"reference: the checkpoint's own weights, {reference.weights} in the graphs, nothing rounded"]
    rows = (("visual tokens", price.visual_tokens), ("logits", price.logits))
    figures = [f"{n}: cosine {d.cosine:.6f}, norm {d.norm_ratio:.1e}, max error {d.error:.1e}" for n, d in rows]
    return [
        f"reference: the checkpoint's weights rounded to {reference.weights}",
        f"rounding them costs: {'; '.join(figures)}; greedy tokens {price.tokens:.1%} the same",
    ]
