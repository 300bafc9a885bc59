from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from storm_edge.calibration.calibrate import calibrate
from storm_edge.calibration.decoder import fp32_decoder
from storm_edge.calibration.language import Language, describe_all
from storm_edge.export.build.vllm.folder import write_folder
from storm_edge.export.export_bundle import export_bundle
from storm_edge.runtime.bundle.calibration import find_language
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import TargetError
from storm_edge.runtime.llm.prompt import VIDEO_TOKENS, ChatPrompt, Message

DEMO = Path(__file__).parents[4] / "demo" / "checkpoint"


def tensors(folder: Path) -> dict[str, np.ndarray]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The trained demo in bf16, so that the plain folder has the very numbers that our decoder has."""
    path = tmp_path_factory.mktemp("demo") / "bundle"
    export_bundle(DEMO, path, dtype="bfloat16")
    return Bundle.open(path)


def test_transformers_loads_the_plain_folder_and_answers_as_our_decoder_does(demo: Bundle, tmp_path: Path) -> None:
    files = write_folder(demo, tmp_path, "bf16")
    assert set(files) == set(tmp_path.iterdir())
    assert files[0].name == "config.json"
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    llm = fp32_decoder(demo, 1).model
    ids = [3, 1, 4, 1, 5, 92, 65]
    with torch.no_grad():
        theirs = model(inputs_embeds=torch.from_numpy(llm.embed(ids))[None]).logits[0, -1].numpy()
    assert np.abs(llm.append(llm.embed(ids)) - theirs).max() < 1e-4


def test_the_folder_has_tokenizer_chat_template_and_the_tokens_that_end_an_answer(demo: Bundle, tmp_path: Path) -> None:
    write_folder(demo, tmp_path, "bf16")
    ours = ChatPrompt.open(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    said = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Which way?"}]}]
    theirs = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
    asked = ours.render([Message("user", "Which way?", video=True)])
    assert theirs == [*asked.before, tokenizer.convert_tokens_to_ids(VIDEO_TOKENS[0]), *asked.after]
    made = GenerationConfig.from_pretrained(tmp_path)
    assert set(made.eos_token_id) == ours.eos_ids


def test_int4_is_written_as_compressed_tensors_packs_it(bundle: Path, tmp_path: Path) -> None:
    write_folder(Bundle.open(bundle), tmp_path, "int4")
    weights = json.loads((tmp_path / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]
    assert weights["weights"]["group_size"] == 128
    made = tensors(tmp_path)
    name = "model.layers.0.mlp.down_proj"
    assert (made[f"{name}.weight_packed"].dtype, list(made[f"{name}.weight_packed"].shape)) == (torch.int32, [128, 48])
    assert made[f"{name}.weight_shape"].tolist() == [128, 384]
    assert f"{name}.weight" not in made


def test_fp8_has_modelopts_names_and_one_scale_for_what_is_fused(bundle: Path, tmp_path: Path) -> None:
    def clips() -> list[np.ndarray]:
        return [np.random.default_rng(i).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8) for i in range(8)]

    opened = Bundle.open(shutil.copytree(bundle, tmp_path / "bundle"))
    out = tmp_path / "hf"
    out.mkdir()
    calibrate(opened, clips, "seen", samples=8, threads=1, language=Language(describe_all(clips), prompts=2))
    files = write_folder(opened, out, "fp8", calibration=find_language(opened, "seen"))
    assert set(files) == set(out.iterdir())
    quantization = json.loads((out / "hf_quant_config.json").read_text())["quantization"]
    assert quantization == {"quant_algo": "FP8", "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}
    made = tensors(out)
    scales = {made[f"model.layers.0.self_attn.{n}_proj.weight_scale"].item() for n in "qkv"}
    assert len(scales) == 1
    assert made["model.layers.0.self_attn.q_proj.weight"].dtype == torch.float8_e4m3fn
    assert made["model.layers.0.mlp.down_proj.input_scale"].item() > 0


def test_what_it_has_not_is_refused(bundle: Path, tmp_path: Path) -> None:
    opened = Bundle.open(bundle)
    with pytest.raises(TargetError, match="vLLM takes no --llm-precision int8"):
        write_folder(opened, tmp_path, "int8")
    with pytest.raises(TargetError, match="128 or 384 inputs of a layer are no multiple of 96"):
        write_folder(opened, tmp_path, "int4", group=96)
