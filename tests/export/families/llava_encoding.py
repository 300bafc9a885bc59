"""Frames as transformers prepares them, and the rows of the prompt that our encoders make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from storm_edge.export.families.recognise import open_checkpoint
from storm_edge.export.network.load import load_line_end, load_temporal, load_vision
from storm_edge.runtime.llm.newline import Newline
from storm_edge.runtime.llm.splice import flatten_visual
from storm_edge.runtime.sessions.device import HOST


def encoded(root: Path, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The rows of the prompt that a checkpoint makes of frames."""
    _, opened = open_checkpoint(root)
    config, line_end = opened.config, load_line_end(opened)
    visual = load_temporal(opened, config)(load_vision(opened)(torch.from_numpy(frames))[None])
    token = None if line_end is None else config.llm.vocab_size
    rows = flatten_visual(HOST, lambda _: line_end.numpy()[None], visual.numpy(), Newline.of(config, token))
    assert len(rows) == config.visual_tokens(len(frames))
    return np.asarray(rows)


def pixels(frames: NDArray[np.uint8], mean: float | list[float] = 0.5, std: float | list[float] = 0.5) -> torch.Tensor:
    """(1, T, 3, H, W), rescaled and normalised as the video processor does."""
    scaled = torch.from_numpy(frames).float() / 255
    return ((scaled - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2)[None]
