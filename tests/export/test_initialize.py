from __future__ import annotations

import filecmp
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipConfig, SiglipModel, SiglipVisionModel

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.checkpoint.importers import Imported, import_language, import_temporal, import_vision
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.initialize import initialize
from storm_edge.export.network.language import load_language_state, transformers_config
from storm_edge.export.network.load import load_temporal, load_vision
from storm_edge.export.network.temporal import TemporalLayer
from storm_edge.export.network.visibility import weakest_move
from storm_edge.export.network.vision import siglip_config
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.presets import PRESETS, preset
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.errors import CheckpointError, UsageError
from storm_edge.runtime.machine.targets import target


def test_each_direction_moves_its_layers_output_by_at_least_a_tenth(checkpoint: Path) -> None:
    opened = Checkpoint.open(checkpoint)
    vision, temporal = load_vision(opened), load_temporal(opened, opened.config)
    frames = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    x = vision(frames).reshape(1, -1, 128)
    for layer in temporal.layers:
        assert isinstance(layer, TemporalLayer)
        assert weakest_move(layer, x) >= 0.1
        x = layer(x)


@pytest.mark.parametrize("name", ["storm-1.5b", "llava-onevision-0.5b", "bimba-7b", "nvila-8b-video"])
def test_presets_are_exported_in_their_own_bf16_and_verified(name: str, tmp_path: Path) -> None:
    large = preset(name)
    vision = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    llm = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    small = {
        "vision": large.vision.model_copy(update=vision | {"image_size": 70}),  # an odd side, as 27 x 27
        "llm": large.llm.model_copy(update=llm | {"num_key_value_heads": 2, "vocab_size": 4096}),
    }
    initialize(large.model_copy(update=small), tmp_path / "checkpoint")
    export_bundle(tmp_path / "checkpoint", tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.config.dtype == "bfloat16"
    assert build(bundle, target("cpu"), BuildOptions()).verified
    orin = build(bundle, target("orin"), BuildOptions(prepare_only=True))
    assert all(result.passed for result in orin.verification)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    checkpoint: Path, config: StormConfig, tmp_path: Path
) -> None:
    initialize(config, tmp_path / "same")
    initialize(config, tmp_path / "other", seed=1)
    names = [str(p.relative_to(checkpoint)) for p in checkpoint.rglob("*") if p.is_file()]
    assert filecmp.cmpfiles(checkpoint, tmp_path / "same", names, shallow=False)[1:] == ([], [])
    assert "temporal.safetensors" in filecmp.cmpfiles(checkpoint, tmp_path / "other", names, shallow=False)[1]


def test_an_existing_folder_is_replaced_only_when_forced(config: StormConfig, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match=r"exists already: .*--force"):
        initialize(config, tmp_path / "out")
    initialize(config, tmp_path / "out", force=True)
    Checkpoint.open(tmp_path / "out")


def test_the_presets_have_the_papers_sizes() -> None:
    large = preset("storm-7b")
    assert (large.tokens_per_frame, large.dt_rank, large.d_inner) == (256, 224, 7168)
    assert large.visual_tokens(128) == 8192  # 64 T with one pooling
    assert large.visual_tokens(128, sample=2) == 4096  # 32 T with pooling and sampling
    assert preset("storm-mini").tokens_per_frame == 16
    with pytest.raises(UsageError, match=f"choose one of {', '.join(PRESETS)}"):
        preset("storm-70b")


def test_a_siglip_folder_is_imported_with_its_sizes(config: StormConfig, tmp_path: Path) -> None:
    theirs = SiglipVisionModel(siglip_config(config.vision.model_copy(update={"hidden_size": 64})))
    theirs.save_pretrained(tmp_path / "siglip")
    config, vision = import_vision(tmp_path / "siglip", config)
    assert config.vision.hidden_size == 64
    initialize(config, tmp_path / "out", imported=Imported(vision=vision))
    ours = load_vision(Checkpoint.open(tmp_path / "out"))
    torch.testing.assert_close(
        ours.blocks[0].mlp.fc1.weight, theirs.encoder.layers[0].mlp.fc1.weight, rtol=0, atol=0, check_stride=False
    )


def test_the_tower_of_a_whole_siglip_model_is_imported(config: StormConfig, tmp_path: Path) -> None:
    whole = SiglipModel(SiglipConfig(vision_config=siglip_config(config.vision).to_dict()))
    whole.save_pretrained(tmp_path / "siglip")
    imported, vision = import_vision(tmp_path / "siglip", config)
    assert imported.vision == config.vision
    assert len(vision) == 3 + 4 * 16


def test_a_qwen2_folder_is_imported_with_its_sizes(config: StormConfig, tmp_path: Path) -> None:
    llm = config.llm.model_copy(update={"num_hidden_layers": 1, "tie_word_embeddings": False, "rope_theta": 10_000.0})
    theirs = Qwen2ForCausalLM(transformers_config(llm))
    theirs.save_pretrained(tmp_path / "qwen2")
    config, language = import_language(tmp_path / "qwen2", config)
    assert config.llm == llm
    initialize(config, tmp_path / "out", imported=Imported(language=language))
    state = load_language_state(Checkpoint.open(tmp_path / "out"))
    torch.testing.assert_close(state["lm_head.weight"], theirs.lm_head.weight.data)


def test_a_model_that_is_no_plain_qwen2_is_refused(config: StormConfig, tmp_path: Path) -> None:
    Qwen2Config(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6}).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="rotary embeddings"):
        import_language(tmp_path, config)
    SiglipConfig().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="model of type 'siglip': give a Qwen2 or a dense Qwen3 folder"):
        import_language(tmp_path, config)


@pytest.mark.parametrize(("prefix", "suffix"), [("backbone.", ".pt"), ("", ".safetensors"), ("model.mm.", ".bin")])
def test_mamba_layers_are_imported_whatever_their_prefix(
    prefix: str, suffix: str, checkpoint: Path, config: StormConfig, tmp_path: Path
) -> None:
    tensors = load_file(checkpoint / "temporal.safetensors")
    layers = {prefix + n: t + np.float32(0.5) for n, t in tensors.items() if n.startswith("layers.")}
    file = tmp_path / f"mamba{suffix}"
    if suffix == ".safetensors":
        save_file(layers, file)
    else:
        torch.save({name: torch.from_numpy(tensor) for name, tensor in layers.items()}, file)
    initialize(config, tmp_path / "out", imported=Imported(temporal=import_temporal(file, config)))
    ours = load_file(tmp_path / "out" / "temporal.safetensors")
    for name, tensor in layers.items():
        np.testing.assert_array_equal(ours[name.removeprefix(prefix)], tensor)
    assert "projector.linear.weight" in ours


def test_damaged_and_incomplete_state_dicts_are_refused(checkpoint: Path, config: StormConfig, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"no pickle")
    with pytest.raises(CheckpointError, match="no PyTorch state dict"):
        import_temporal(tmp_path / "a.pt", config)
    torch.save([1, 2], tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        import_temporal(tmp_path / "b.pt", config)
    tensors = load_file(checkpoint / "temporal.safetensors")
    del tensors["layers.1.mixer.A_b_log"]
    save_file(tensors, tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match=r"missing layers\.1\.mixer\.A_b_log"):
        import_temporal(tmp_path / "c.safetensors", config)
    with pytest.raises(CheckpointError, match="does not exist"):
        import_temporal(tmp_path / "d.pt", config)
