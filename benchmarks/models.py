"""The models that reports measure."""

from __future__ import annotations

from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.schema import StormConfig


def wide_slice() -> StormConfig:
    """storm-7b's widths with few layers: 2 vision blocks, 1 temporal layer, 2 decoder layers, a vocabulary of 4096."""
    full = preset("storm-7b")
    return full.model_copy(
        update={
            "dtype": "float32",
            "vision": full.vision.model_copy(update={"num_hidden_layers": 3}),
            "temporal": full.temporal.model_copy(update={"num_layers": 1}),
            "llm": full.llm.model_copy(update={"num_hidden_layers": 2, "vocab_size": 4096}),
        }
    )


MODELS = {"storm-mini": preset("storm-mini"), "a slice with storm-7b's widths": wide_slice()}
