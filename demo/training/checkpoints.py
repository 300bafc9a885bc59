"""Saving: the ordinary checkpoint folder, and everything that a resumed run needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from storm_edge.demo.training.batches import Questioner
from storm_edge.demo.training.model import StormModel
from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.checkpoint.shapes import language_shapes, temporal_shapes, vision_shapes
from storm_edge.export.checkpoint.tokenizer import copy_tokenizer
from storm_edge.export.checkpoint.weights import LazyTensor, write_safetensors
from storm_edge.export.network.language import load_language_state
from storm_edge.export.network.load import load_temporal, load_vision
from storm_edge.runtime.bundle.publish import staging
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.llm.prompt import ChatPrompt


def write_checkpoint(model: StormModel, tokenizer: Path, output: Path) -> None:
    """Write the model and its tokenizer as a checkpoint folder, in fp32, replacing what is there, without the heads."""
    config: StormConfig = model.config
    vision, temporal, llm = (m.state_dict() for m in (model.vision, model.temporal, model.llm))
    with staging(output) as folder:
        (folder / "vision_tower").mkdir()
        towers = {n: _lazy(vision[n.replace("encoder.layers.", "blocks.")]) for n in sorted(vision_shapes(config))}
        write_safetensors(folder / "vision_tower" / "model.safetensors", towers)
        layers = {
            n: _lazy((vision if n.startswith("projector.") else temporal)[n]) for n in sorted(temporal_shapes(config))
        }
        write_safetensors(folder / "temporal.safetensors", layers)
        (folder / "llm").mkdir()
        language = {n: _lazy(llm[n]) for n in sorted(language_shapes(config.llm))}
        write_safetensors(folder / "llm" / "model.safetensors", language)
        copy_tokenizer(tokenizer, folder / "llm", config.llm.vocab_size)
        text = json.dumps(config.model_dump(), indent=2) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")


def read_checkpoint(folder: Path) -> tuple[StormModel, Questioner]:
    """A checkpoint of the demo's kind as the network in training, without its heads, and what writes its prompts."""
    checkpoint = Checkpoint.open(folder)
    model = StormModel(checkpoint.config)
    model.vision.load_state_dict(load_vision(checkpoint).state_dict())
    model.temporal.load_state_dict(load_temporal(checkpoint, checkpoint.config).state_dict())
    model.llm.load_state_dict(load_language_state(checkpoint), strict=False)
    return model.eval(), Questioner(ChatPrompt.open(folder / "llm"))


def _lazy(tensor: torch.Tensor) -> LazyTensor:
    values = tensor.detach().cpu().float().contiguous().numpy()
    return LazyTensor(np.dtype(np.float32), tuple(values.shape), lambda: values)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state so that a stop in the middle leaves the state before."""
    unfinished = path.with_suffix(".tmp")
    torch.save(state, unfinished)
    unfinished.replace(path)
