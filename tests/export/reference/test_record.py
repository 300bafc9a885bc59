"""The reference record, whole and layer by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from storm_edge.export import export_bundle as module
from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.export_bundle import export_bundle, synthetic_frames
from storm_edge.export.initialize import initialize
from storm_edge.export.network.language import load_language_model, stream_language_model
from storm_edge.export.network.load import load_temporal, load_vision
from storm_edge.export.reference.record import ReferenceClip, record_clips
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.llm.newline import Newline


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_record_made_layer_by_layer_equals_that_of_the_whole_model(
    config: StormConfig, tmp_path: Path, tied: bool, dtype: str
) -> None:
    llm = config.llm.model_copy(update={"tie_word_embeddings": tied})
    initialize(config.model_copy(update={"llm": llm, "dtype": dtype}), tmp_path / "checkpoint")
    checkpoint = Checkpoint.open(tmp_path / "checkpoint")
    clips = [ReferenceClip(synthetic_frames(4, 64, 0), [5, 6, 7], [8, 9], newline=Newline(10, 16))]
    parts = load_vision(checkpoint), load_temporal(checkpoint, checkpoint.config)
    (whole,) = record_clips(clips, *parts, load_language_model(checkpoint), 8)
    (streamed,) = record_clips(clips, *parts, stream_language_model(checkpoint), 8)
    assert whole.keys() == streamed.keys()
    for key, values in whole.items():
        np.testing.assert_array_equal(streamed[key], values)
    assert len(streamed["greedy"]) == 8


def test_a_layer_holds_weights_only_while_it_runs(checkpoint: Path) -> None:
    llm = stream_language_model(Checkpoint.open(checkpoint))
    assert {p.device.type for p in llm.parameters()} == {"meta"}
    held = []
    for layer in llm.model.layers:
        layer.self_attn.register_forward_hook(
            lambda *_: held.append(sum(p.device.type == "cpu" for p in llm.parameters()))
        )
    with torch.no_grad():
        llm(inputs_embeds=torch.zeros(1, 3, 128))
    assert held == [len(list(layer.parameters())) for layer in llm.model.layers]
    assert {p.device.type for p in llm.parameters()} == {"meta"}


def test_a_large_checkpoint_is_recorded_with_one_clip_of_four_frames_and_eight_tokens(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WHOLE_MODEL_BYTES", Checkpoint.open(checkpoint).nbytes - 1)
    monkeypatch.setattr(module, "load_language_model", None)
    export_bundle(checkpoint, tmp_path / "bundle")
    opened = Bundle.open(tmp_path / "bundle")
    (name,) = opened.manifest.clips
    clip = load_file(tmp_path / "bundle" / name)
    assert clip["frames"].shape == (4, 64, 64, 3)
    assert clip["logits"].shape == (8, 4096)
