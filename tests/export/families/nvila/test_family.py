"""NVILA's layout, and rows of the prompt against those that VILA's own modules made of the same weights and frames.

`recorded.npz` holds what VILA's MultimodalProjector and TSPVideoEncoder (commit b760c34) gave behind transformers'
tower for the checkpoints of `nvila_models` and 8 frames, 4 of them averaged at a time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from downstream import compiled, quantized_engine, quantizers
from nvila_models import PROJECTORS, expected_config, save_nvila
from safetensors.torch import load_file, save_file

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.checkpoint.tokenizer import copy_tokenizer
from storm_edge.export.export_bundle import export_bundle, synthetic_frames
from storm_edge.export.families.recognise import open_checkpoint
from storm_edge.export.network.load import load_temporal, load_vision
from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import CheckpointError
from storm_edge.runtime.llm.newline import newline_of_model
from storm_edge.runtime.llm.prompt import ChatPrompt, Message
from storm_edge.runtime.llm.splice import flatten_visual
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.sessions.device import HOST

RECORDED = np.load(Path(__file__).parent / "recorded.npz")


@pytest.mark.parametrize("projector", PROJECTORS)
@torch.no_grad()
def test_the_rows_of_the_prompt_are_those_of_vilas_modules(tmp_path: Path, projector: str) -> None:
    family, checkpoint = open_checkpoint(save_nvila(tmp_path / "nvila", projector))
    config = checkpoint.config
    assert family.name == "nvila"
    assert config == expected_config(projector, 4)
    frames = torch.from_numpy(synthetic_frames(8, 70, 1))
    visual = load_temporal(checkpoint, config)(load_vision(checkpoint)(frames)[None])
    table = checkpoint.llm.read("model.embed_tokens.weight")
    newline = newline_of_model(config, ChatPrompt.open(checkpoint.tokenizer))
    rows = flatten_visual(HOST, lambda ids: table[list(ids)], visual.numpy(), newline)
    assert len(rows) == config.visual_tokens(8)
    np.testing.assert_allclose(rows, RECORDED[projector], atol=1e-5)


def test_a_video_stands_right_before_its_text(tmp_path: Path) -> None:
    root = save_nvila(tmp_path / "nvila")
    copy_tokenizer(root / "llm", tmp_path / "joined", 4096, joined=True)
    theirs, ours = ChatPrompt.open(root / "llm"), ChatPrompt.open(tmp_path / "joined")
    messages = [Message("user", "What?", video=True), Message("assistant", "A dog."), Message("user", "Why?")]
    prompt = ours.render(messages)
    end, start = 4090, 4089  # where `write_byte_tokenizer` puts <|im_end|> and <|im_start|>
    text = [*ours.encode("What?"), end, *ours.encode("\n"), start, *ours.encode("assistant\n")]
    assert ours.render(messages[:1]).after == text
    assert prompt.after[: len(text)] == text
    # Qwen2-VL's template, which ours stands in front of here, marks a video with special tokens.
    marked = theirs.render(messages)
    assert prompt.before == marked.before[:-1]
    assert prompt.after == marked.after[1:]


def test_a_bundle_of_it_is_built_and_verified_and_answers(tmp_path: Path) -> None:
    export_bundle(save_nvila(tmp_path / "checkpoint", "mlp_downsample_3x3_fix"), tmp_path / "bundle")
    assert build(Bundle.open(tmp_path / "bundle"), target("cpu"), BuildOptions()).verified
    video = load(tmp_path / "bundle").open(synthetic_frames(8, 70, 1))
    np.testing.assert_allclose(np.asarray(video.rows), RECORDED["mlp_downsample_3x3_fix"], atol=1e-4)
    assert video.ask("What?").stats.visual_tokens == 2 * (4 + 1)


def test_int8_engines_are_built_of_it(tmp_path: Path) -> None:
    bundle, record = quantized_engine(save_nvila(tmp_path / "checkpoint"))
    found = quantizers(bundle, record)
    assert found["temporal"] == 0
    assert found["vision"] >= 8  # four of a block


@pytest.mark.usefixtures("rtx")
def test_tensorrt_for_rtx_compiles_its_pooling(tmp_path: Path) -> None:
    stages = ("temporal",)  # no fused attention is as narrow as this model's heads of 6 and 8
    assert {*compiled(save_nvila(tmp_path / "checkpoint"), stages)} == {*stages}


def test_weights_may_be_in_several_files_and_must_be_safetensors(tmp_path: Path) -> None:
    root = save_nvila(tmp_path / "nvila")
    tensors = load_file(root / "llm" / "model.safetensors")
    (root / "llm" / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, root / "llm" / file, {"format": "pt"})
    places = {name: file for file, part in halves.items() for name in part}
    (root / "llm" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert open_checkpoint(root)[1].llm.read("model.norm.weight").shape == (32,)
    (root / "mm_projector" / "model.safetensors").unlink()
    (root / "mm_projector" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"mm_projector has its weights in \.bin files.*safe_serialization"):
        open_checkpoint(root)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dynamic_s2": True}, "dynamic_s2 is True"),
        ({"video_max_tiles": 4}, "video_max_tiles is 4"),
        ({"vision_resolution": 980}, "vision_resolution 980, but the vision tower beside it takes 70"),
        ({"video_encoder": "{"}, "a video_encoder that is no JSON"),
        ({"video_encoder": [1]}, "a video_encoder that is no object"),
        ({"video_encoder": {"_target_": "llava.model.encoders.Other"}}, "the video_encoder 'Other'"),
        ({"video_encoder": {"sep_tokens": "."}}, r"sep_tokens is '\.'"),
        ({"video_encoder": {"_target_": "a.TSPVideoEncoder"}}, r"pool_sizes \[\]: one triple"),
        ({"video_encoder": {"_target_": "a.TSPVideoEncoder", "pool_sizes": [[8, 1, 1], [1, 2, 2]]}}, "one triple"),
        ({"video_encoder": {"_target_": "a.TSPVideoEncoder", "pool_sizes": [[8, 1, 3]]}}, "1 x 3 tokens of a frame"),
        ({"video_encoder": {"_target_": "a.TSPVideoEncoder", "pool_sizes": [["x", 1, 1]]}}, "temporal_pool"),
    ],
)
def test_forms_that_do_not_run_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        open_checkpoint(save_nvila(tmp_path / "nvila", **changed))
    assert "\n" not in str(error.value)


def test_another_projector_or_language_model_is_refused(tmp_path: Path) -> None:
    root = save_nvila(tmp_path / "nvila")
    for part, changed, message in (
        ("mm_projector", {"mm_projector_type": "mlp_downsample_3x3_s2"}, "only mlp_downsample, "),
        ("llm", {"model_type": "llama"}, "model of type 'llama'"),
    ):
        path = root / part / "config.json"
        before = path.read_text()
        path.write_text(json.dumps(json.loads(before) | changed))
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(root)
        path.write_text(before)
