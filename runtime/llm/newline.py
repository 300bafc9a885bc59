"""Line ends among visual tokens: a row of the embedding table after every row of a frame, every frame, or all."""

from __future__ import annotations

from dataclasses import dataclass

from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.llm.prompt import ChatPrompt


@dataclass(frozen=True)
class Newline:
    """The row `token` follows every `every` visual tokens, or all of them where that is 0."""

    token: int
    every: int

    @classmethod
    def of(cls, config: StormConfig, token: int | None) -> Newline | None:
        """Where a model has the line end `token`; None for None, which is a model without."""
        if token is None:
            return None
        frame = config.pooled_tokens_per_frame
        every = {"none": frame, "row": config.pooled_grid, "frame": frame, "end": 0}
        return cls(token, every[config.reduction.image_newline])


def newline_of_model(config: StormConfig, prompt: ChatPrompt) -> Newline | None:
    r"""A model's line ends: rows of the token "\n", or of the trained one behind the vocabulary's last."""
    if config.reduction.image_newline != "none":
        return Newline.of(config, config.llm.vocab_size)
    return Newline.of(config, prompt.newline_id if config.reduction.newline_token else None)
