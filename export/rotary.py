"""The angles of rotary position embedding (RoFormer, section 3.4.2), as traced and fused decoders use them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.config.schema import LanguageConfig


def inverse_frequencies(config: LanguageConfig) -> npt.NDArray[np.float32]:
    """float32 [head / 2]: radians that each pair of a head's values turns from one position to the next."""
    steps = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies: npt.NDArray[np.float32] = (1.0 / np.power(np.float32(config.rope_theta), steps)).astype(np.float32)
    return frequencies
