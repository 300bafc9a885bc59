from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest

from storm_edge.calibration.calibrate import calibrate
from storm_edge.calibration.decoder import decoder_of
from storm_edge.calibration.graphs import fp32_graph
from storm_edge.calibration.language import Language, describe_all
from storm_edge.export.build.steps import nbits_steps
from storm_edge.export.build.tensorrt_llm.checkpoint import write_checkpoint
from storm_edge.export.checkpoint.weights import Weights
from storm_edge.export.passes.block_weights import INT4_KEPT, block_weights
from storm_edge.export.passes.smoothquant import smoothquant, smoothquant_groups
from storm_edge.export.passes.tensors import values
from storm_edge.runtime.bundle.calibration import Calibration, Layers, find_language
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import DType, LanguageConfig
from storm_edge.runtime.errors import TargetError

MakeBundle = Callable[[LanguageConfig, DType], Bundle]


def shape(heads: int, kv_heads: int, vocabulary: int, *, tied: bool = False, head: int = 16) -> LanguageConfig:
    return LanguageConfig(
        hidden_size=heads * head,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )


# Qwen2-7B's 28 and 4 heads at a quarter of their width; 2 kv heads are repeated for 4 ranks; 0.5B's 14 and 2 at tp 2.
SHAPES = {
    "28 and 4 heads": (shape(28, 4, 152), (1, 2, 4)),
    "kv heads repeated, odd vocabulary": (shape(8, 2, 151), (1, 2, 4)),
    "one kv head, tied": (shape(4, 1, 150, tied=True), (1, 2, 4)),
    "14 and 2 heads, tied, odd vocabulary": (shape(14, 2, 97, tied=True), (1, 2)),
}
CASES = [pytest.param(config, tp, id=f"{name}, tp {tp}") for name, (config, tps) in SHAPES.items() for tp in tps]
SMALL = SHAPES["kv heads repeated, odd vocabulary"][0]


def ids(config: LanguageConfig) -> list[int]:
    some: list[int] = np.random.default_rng(3).integers(0, config.vocab_size, 11).tolist()
    return [*some, config.vocab_size - 1]


def original(bundle: Bundle, name: str) -> np.ndarray:
    with Weights.open(bundle.root.parent / "llm") as weights:
        return weights.read(name)


def near(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return bool(np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(("config", "tp"), CASES)
@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16"), ("int8", "bfloat16")])
def test_all_ranks_together_hold_the_very_weights_and_run_as_our_decoder_does(
    config: LanguageConfig,
    tp: int,
    precision: str,
    dtype: DType,
    decoder_bundle: MakeBundle,
    reader: ModuleType,
    tmp_path: Path,
) -> None:
    bundle = decoder_bundle(config, dtype)
    out = tmp_path / "trtllm"
    out.mkdir()
    write_checkpoint(bundle, out, precision, tp)
    made = reader.Checkpoint(out)
    made.check()
    assert (made.tp, made.config["dtype"]) == (tp, dtype)
    for i in range(config.num_hidden_layers):
        for name, tensor in made.whole(i).items():
            assert np.array_equal(tensor, original(bundle, f"model.layers.{i}.{name}")), name
    table = original(bundle, "model.embed_tokens.weight")
    assert np.array_equal(made.same_on_all("transformer.vocab_embedding.weight"), table)
    head = table if config.tie_word_embeddings else original(bundle, "lm_head.weight")
    assert np.array_equal(made.head_matrix(), head)
    assert np.array_equal(made.same_on_all("transformer.ln_f.weight"), original(bundle, "model.norm.weight"))
    llm = decoder_of(bundle, *fp32_graph(bundle, "decoder", {}), 1).model
    assert near(made.logits(ids(config)), llm.append(llm.embed(ids(config))))


@pytest.mark.parametrize(("config", "tp"), CASES)
def test_int4_is_the_one_int4_on_every_rank_and_computes_what_onnx_runtime_does(
    config: LanguageConfig, tp: int, decoder_bundle: MakeBundle, reader: ModuleType, tmp_path: Path
) -> None:
    group = 16
    bundle = decoder_bundle(config, "bfloat16")
    out = tmp_path / "trtllm"
    out.mkdir()
    write_checkpoint(bundle, out, "int4", tp, group=group)
    made = reader.Checkpoint(out)
    made.check()
    model, readers = fp32_graph(bundle, "decoder", {})
    done = block_weights(model, readers, 4, group, keep=INT4_KEPT)
    assert len(done) == 2 * 7
    dequantized, weights = fp32_graph(bundle, "decoder", {})
    whole = [made.whole(i) for i in range(config.num_hidden_layers)]
    for name in done:
        stored = readers[f"{name}.int4"]().astype(np.float32) * readers[f"{name}.scale"]().repeat(group, axis=0)
        _, _, layer, part = name.split(".", 3)
        assert np.array_equal(whole[int(layer)][part], stored.T), name
        weights[name] = lambda stored=stored: stored
    # With DequantizeLinear in the graph ONNX Runtime would multiply in 8 bits.
    llm = decoder_of(bundle, dequantized, weights, 1).model
    assert near(made.logits(ids(config)), llm.append(llm.embed(ids(config))))


def test_int4_scaled_by_a_calibration_is_that_of_the_other_engines(
    decoder_bundle: MakeBundle, reader: ModuleType, tmp_path: Path
) -> None:
    bundle = decoder_bundle(SMALL, "bfloat16")
    model, readers = fp32_graph(bundle, "decoder", {})
    rng = np.random.default_rng(0)
    scales = {
        g.output: np.exp(rng.normal(0, 1, g.layers[0].shape[0])).astype(np.float32) for g in smoothquant_groups(model)
    }
    found = Calibration(
        "a", "minmax", "", None, {}, Layers(stages={}), {"vision": {}, "temporal": {}, "decoder": scales}, "f00"
    )
    out = tmp_path / "trtllm"
    out.mkdir()
    write_checkpoint(bundle, out, "int4", 2, calibration=found, group=32)
    made = reader.Checkpoint(out)
    smoothquant(model, readers, scales)
    block_weights(model, readers, 4, 32, keep=INT4_KEPT)
    for name in ("self_attn.q_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"):
        full = f"model.layers.1.{name}"
        stored = readers[f"{full}.int4"]().astype(np.float32) * readers[f"{full}.scale"]().repeat(32, axis=0)
        assert np.array_equal(made.whole(1)[name], stored.T)
    norm = next(t for t in model.graph.initializer if t.name == "model.layers.1.input_layernorm.weight")
    expected = values(norm, readers).astype(ml_dtypes.bfloat16)
    assert np.array_equal(made.whole(1)["input_layernorm.weight"], expected)


def test_the_documented_unpacking_gives_what_matmulnbits_multiplies_by(
    decoder_bundle: MakeBundle, reader: ModuleType, tmp_path: Path
) -> None:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    bundle = decoder_bundle(SMALL, "bfloat16")
    out = tmp_path / "trtllm"
    out.mkdir()
    write_checkpoint(bundle, out, "int4", 1, group=32)
    weight = reader.Checkpoint(out).whole(0)["mlp.down_proj.weight"]  # [128, 192]
    source = original(bundle, "model.layers.0.mlp.down_proj.weight").astype(np.float32).T
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, s]) for n, s in (("x", 192), ("y", 128)))
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(np.ascontiguousarray(source), "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    readers: dict = {}
    for step in nbits_steps(4, 32):
        step.apply(model, readers)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(readers[tensor.name](), tensor.name))
    # Of a row that is 1 in one place the kernel's 8 bits hold every value exactly.
    (rows,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": np.eye(192, dtype=np.float32)})
    np.testing.assert_allclose(rows.T, weight, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def observed(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """storm-mini's bundle with a calibration that observed the language model."""
    import shutil

    def clips() -> list[np.ndarray]:
        return [np.random.default_rng(i).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8) for i in range(8)]

    path = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("observed") / "bundle"))
    opened = Bundle.open(path)
    calibrate(opened, clips, "seen", samples=8, threads=1, language=Language(describe_all(clips), prompts=2))
    return Bundle.open(path)


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_fp8_has_one_scale_for_what_reads_the_same_and_is_within_half_a_step(
    tp: int, observed: Bundle, reader: ModuleType, tmp_path: Path
) -> None:
    written = write_checkpoint(observed, tmp_path, "fp8", tp, calibration=find_language(observed, None))
    made = reader.Checkpoint(tmp_path)
    made.check()
    model, readers = fp32_graph(observed, "decoder", {})
    scales = {
        name: made.same_on_all(f"transformer.layers.0.{name}.weights_scaling_factor")[0]
        for name in ("attention.qkv", "mlp.fc", "mlp.gate")
    }
    assert scales["mlp.fc"] == scales["mlp.gate"]
    largest = max(np.abs(readers[f"model.layers.0.self_attn.{n}_proj.weight"]()).max() for n in "qkv")
    assert scales["attention.qkv"] == np.float32(largest / 448)
    for i in range(observed.config.llm.num_hidden_layers):
        for name, tensor in made.whole(i).items():
            if tensor.dtype == np.float32:
                exact = readers[f"model.layers.{i}.{name}"]().T
                # e4m3 has 3 bits behind the point, and below its least exponent steps of a 2**-9th of the scale.
                step = np.maximum(np.abs(exact) / 16, scales["attention.qkv"] * 2.0**-6)
                assert (np.abs(tensor - exact) <= step).all(), name
    assert made.quantization["kv_cache_quant_algo"] == "FP8"
    assert (written.notes, made.same_on_all("transformer.layers.3.attention.kv_cache_scaling_factor")[0] > 0) == (
        [],
        True,
    )
    llm = decoder_of(observed, model, readers, 1).model
    some = ids(observed.config.llm)
    ours, theirs = made.logits(some), llm.append(llm.embed(some))
    assert np.dot(ours, theirs) > 0.98 * np.linalg.norm(ours) * np.linalg.norm(theirs)


def test_what_a_calibration_leaves_out_of_fp8_is_written_plain_and_excluded(
    observed: Bundle, reader: ModuleType, tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    bundle = Bundle.open(copy_of(observed.root))
    layers = bundle.root / "calibration" / "seen" / "layers.json"
    chosen = json.loads(layers.read_text())
    for layer in chosen["stages"]["decoder"].values():
        if layer["weight"] in ("model.layers.1.self_attn.k_proj.weight", "model.layers.2.mlp.up_proj.weight"):
            layer["quantize"] = False
    layers.write_text(json.dumps(chosen))
    out = tmp_path / "trtllm"
    out.mkdir()
    write_checkpoint(bundle, out, "fp8", 2, calibration=find_language(bundle, None))
    made = reader.Checkpoint(out)
    made.check()
    excluded = made.quantization["exclude_modules"]
    assert {x for x in excluded if "*" not in x} == {
        "transformer.layers.1.attention.qkv",
        "transformer.layers.2.mlp.fc",
        "transformer.layers.2.mlp.gate",
    }
    assert "*lm_head" in excluded  # a list of one's own replaces the package's


def test_a_calibration_without_keys_and_values_leaves_their_cache_in_16_bits_and_says_so(
    observed: Bundle, reader: ModuleType, tmp_path: Path
) -> None:
    found = find_language(observed, None)
    del found.ranges["decoder"]["model.layers.2.self_attn.v_proj"]
    (note,) = write_checkpoint(observed, tmp_path, "fp8", calibration=found).notes
    assert "no ranges of keys and values, so their cache keeps 16 bits" in note
    made = reader.Checkpoint(tmp_path)
    made.check()
    assert made.quantization["kv_cache_quant_algo"] is None


@pytest.mark.parametrize(
    ("heads", "kv_heads", "tp", "said"),
    [
        (28, 4, 8, r"--tp 8: 28 attention heads cannot be shared among 8 ranks \(28 / 8 = 3.5\): choose 1 or 2 or 4"),
        (12, 3, 2, "3 key-value heads can neither be shared among 2 ranks nor be repeated to 2: choose 1"),
    ],
)
def test_ranks_that_cannot_share_the_heads_are_refused_with_the_arithmetic(
    heads: int, kv_heads: int, tp: int, said: str, decoder_bundle: MakeBundle, tmp_path: Path
) -> None:
    with pytest.raises(TargetError, match=said):
        write_checkpoint(decoder_bundle(shape(heads, kv_heads, 64), "bfloat16"), tmp_path, "bf16", tp)


def test_blocks_that_ranks_would_cut_are_refused(decoder_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="--tp 4: a rank's 32 inputs of a layer are no multiple of 64"):
        write_checkpoint(decoder_bundle(SMALL, "bfloat16"), tmp_path, "int4", 4, group=64)
    assert not (tmp_path / "config.json").exists()


def test_a_precision_that_it_has_not_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="takes no --llm-precision fp32: choose bf16, fp16, fp8, int8, int4"):
        write_checkpoint(Bundle.open(bundle), tmp_path, "fp32")
