"""Dense Qwen3 as the language model, against transformers' own with random weights in transformers' layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.tensorrt_llm.ranks import check_architecture
from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.checkpoint.importers import Imported, import_language
from storm_edge.export.checkpoint.weights import Weights
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.graph_file import load_model, save_model
from storm_edge.export.initialize import initialize
from storm_edge.export.network.language import load_language_model, stream_language_model
from storm_edge.export.passes.fuse_decoder import fuse_decoder
from storm_edge.export.trace.decoder import compose_decoder
from storm_edge.export.trace.embedding import write_embedding
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import LanguageConfig, StormConfig
from storm_edge.runtime.errors import CheckpointError, TargetError
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.onnxruntime import OnnxRuntimeDecoder
from storm_edge.runtime.machine.targets import target

PROMPT, STEPS = 90, 64


def random_qwen3(root: Path, **changed: Any) -> Qwen3ForCausalLM:
    """Heads of 32 channels, 4 of which are wider than what they read; norms that are not all ones."""
    fields: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 4096,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "tie_word_embeddings": False,
    }
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**fields | changed)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter.shape[1] ** -0.5 if "embed" not in name else 0.3)
        else:
            parameter.normal_(1.0, 0.3)
    model.save_pretrained(root)
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Qwen3ForCausalLM]:
    root = tmp_path_factory.mktemp("qwen3")
    return root, random_qwen3(root)


def imported_config(root: Path, config: StormConfig) -> LanguageConfig:
    return import_language(root, config)[0].llm


def test_a_qwen3_folder_is_imported_with_its_sizes(
    model: tuple[Path, Qwen3ForCausalLM], config: StormConfig, tmp_path: Path
) -> None:
    llm = imported_config(model[0], config)
    assert (llm.architecture, llm.head_dim, llm.heads_width, llm.hidden_size) == ("qwen3", 32, 128, 64)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads((model[0] / "config.json").read_text()) | {"attention_bias": True}))
    with pytest.raises(CheckpointError, match="attention_bias"):
        import_language(tmp_path, config)


@pytest.mark.parametrize("fused", [False, True])
@torch.no_grad()
def test_logits_and_greedy_tokens_are_those_of_transformers(
    model: tuple[Path, Qwen3ForCausalLM], config: StormConfig, tmp_path: Path, fused: bool
) -> None:
    root, theirs = model
    llm = imported_config(root, config)
    graph = tmp_path / "decoder.onnx"
    with Weights.open(root) as weights:
        compose_decoder(llm, weights, "float32").save(graph, "decoder.data")
        write_embedding(weights, tmp_path / "embedding.safetensors")
    if fused:
        loaded = load_model(graph)
        fuse_decoder(loaded.model, llm, 512)
        graph = tmp_path / "fused.onnx"
        save_model(loaded.model, graph, "fused.data", loaded.tensors)
    ours = OnnxRuntimeDecoder(graph, llm, EmbeddingTable.open(tmp_path / "embedding.safetensors"), 512, 32)
    prompt = torch.randint(0, 4096, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    made = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=STEPS,
        min_new_tokens=STEPS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    logits = ours.append(ours.embed(prompt[0].tolist()))
    for step in range(STEPS):
        np.testing.assert_allclose(logits, made.logits[step][0].numpy(), atol=1e-4)
        token = int(logits.argmax())
        assert token == made.sequences[0, PROMPT + step]
        logits = ours.append(ours.embed([token]))


@torch.no_grad()
def test_a_bundle_with_it_is_verified_in_fp32_and_runs_in_int4(
    model: tuple[Path, Qwen3ForCausalLM], config: StormConfig, tmp_path: Path
) -> None:
    small = config.model_copy(update={"temporal": config.temporal.model_copy(update={"num_layers": 0})})
    composed, language = import_language(model[0], small)
    initialize(composed, tmp_path / "checkpoint", imported=Imported(language=language))
    checkpoint = Checkpoint.open(tmp_path / "checkpoint")
    ids = torch.arange(20)[None]
    expected = model[1](ids).logits
    for loaded in (load_language_model(checkpoint), stream_language_model(checkpoint)):
        torch.testing.assert_close(loaded(ids).logits, expected, rtol=0, atol=1e-4)
    export_bundle(tmp_path / "checkpoint", tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    assert build(bundle, target("cpu"), BuildOptions()).verified
    # Random weights may lie a little beyond what int4 is allowed, which is recorded: it runs all the same.
    assert build(bundle, target("cpu"), BuildOptions(llm_precision="int4", allow_mismatch=True)).name.endswith("int4")


def test_runners_that_are_not_given_it_refuse() -> None:
    check_architecture(LanguageConfig(), "vLLM")
    with pytest.raises(TargetError, match=r"Qwen3, whose bundle vLLM is not given yet: build for .* ONNX Runtime"):
        check_architecture(LanguageConfig(architecture="qwen3", head_width=128), "vLLM")
