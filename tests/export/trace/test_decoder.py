import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from storm_edge.export.checkpoint.head import EMBEDDING, HEAD
from storm_edge.export.checkpoint.shapes import language_shapes
from storm_edge.export.checkpoint.weights import Weights, write_safetensors
from storm_edge.export.trace.decoder import ONNX_TYPES, compose_decoder
from storm_edge.export.trace.embedding import write_embedding
from storm_edge.runtime.config.schema import LanguageConfig
from storm_edge.runtime.errors import CheckpointError
from storm_edge.runtime.llm.embedding import EmbeddingTable

CONFIG = LanguageConfig(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=70,
    max_position_embeddings=64,
)
TIED = CONFIG.model_copy(update={"tie_word_embeddings": True})


def _checkpoint(folder, config=CONFIG, dtype=np.float32, **changes):
    """Random weights of `config`; `changes` (with _ for .) replace tensors, None removes them."""
    rng = np.random.default_rng(0)
    tensors = {n: (rng.normal(size=shape) / 4).astype(dtype) for n, shape in language_shapes(config).items()} | changes
    write_safetensors(folder / "model.safetensors", {name: t for name, t in tensors.items() if t is not None})
    return Weights.open(folder)


def _save(folder, weights, config=CONFIG, dtype="float32"):
    path = folder / f"decoder.{dtype}.onnx"
    compose_decoder(config, weights, dtype).save(path, f"{path.stem}.data")
    return path


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["own head", "tied head"])
def test_the_graph_passes_the_full_check_and_keeps_the_contract(tmp_path, config, dtype):
    path = _save(tmp_path, _checkpoint(tmp_path, config), config, dtype)
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(path, load_external_data=False).graph
    T = ONNX_TYPES[dtype]
    cache = (T, [1, 2, "length", 8])
    kinds = [(kind, i) for i in range(2) for kind in ("key", "value")]
    assert _values(graph.input) == {
        "inputs_embeds": (T, [1, "sequence", 32]),
        "position_ids": (TensorProto.INT64, [1, "sequence"]),
        "write_indices": (TensorProto.INT64, [1]),
        **{f"past_{kind}_{i}": cache for kind, i in kinds},
    }
    assert _values(graph.output) == {
        "logits": (TensorProto.FLOAT, [1, 1, 70]),
        **{f"present_{kind}_{i}": cache for kind, i in kinds},
    }


def _values(values):
    types = {value.name: value.type.tensor_type for value in values}
    return {n: (t.elem_type, [d.dim_param or d.dim_value for d in t.shape.dim]) for n, t in types.items()}


def test_shape_inference_names_the_axes_of_every_value(tmp_path):
    path = _save(tmp_path, _checkpoint(tmp_path))
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    shapes = {name: shape for name, (_, shape) in _values(inferred.graph.value_info).items()}
    assert not [name for name, shape in shapes.items() if any(str(axis).startswith("unk__") for axis in shape)]
    assert shapes["mask"] == [1, 1, "sequence", "length"]
    assert shapes["model.layers.1.output"] == [1, "sequence", 32]
    assert shapes["model.layers.0.self_attn.mixed"] == [1, 4, "sequence", 8]


def test_initializers_keep_their_names_and_matrices_are_transposed(tmp_path):
    weights = _checkpoint(tmp_path)
    found = {t.name: numpy_helper.to_array(t) for t in onnx.load(_save(tmp_path, weights)).graph.initializer}
    expected = set(language_shapes(CONFIG)) - {EMBEDDING}
    assert expected <= set(found)
    for name in expected:
        tensor = weights.read(name)
        np.testing.assert_array_equal(found[name], tensor.T if tensor.ndim == 2 else tensor)


def test_exporting_twice_gives_the_same_bytes_and_no_path(tmp_path):
    weights = _checkpoint(tmp_path)
    first = [p.read_bytes() for p in (_save(tmp_path, weights), tmp_path / "decoder.float32.data")]
    assert [p.read_bytes() for p in (_save(tmp_path, weights), tmp_path / "decoder.float32.data")] == first
    assert str(tmp_path).encode() not in first[0]


def test_weights_are_converted_to_the_bundles_type(tmp_path):
    weights = _checkpoint(tmp_path, dtype=ml_dtypes.bfloat16)
    found = {t.name: numpy_helper.to_array(t) for t in onnx.load(_save(tmp_path, weights)).graph.initializer}
    assert found[HEAD].dtype == np.float32
    np.testing.assert_array_equal(found[HEAD], weights.read(HEAD).astype(np.float32).T)


def test_angles_stay_exact_at_far_positions_in_narrow_types(tmp_path):
    """float16 holds integers up to 2048 only: positions must not pass through it."""
    weights = _checkpoint(tmp_path)
    inputs = {
        "inputs_embeds": np.random.default_rng(1).normal(size=(1, 3, 32)).astype(np.float16),
        "position_ids": np.array([[3000, 3001, 3002]]),
        "write_indices": np.array([3000]),
        **{f"past_{k}_{i}": np.zeros((1, 2, 3008, 8), np.float16) for k in ("key", "value") for i in range(2)},
    }
    (narrow,) = ort.InferenceSession(_save(tmp_path, weights, dtype="float16")).run(["logits"], inputs)
    wide = {name: x.astype(np.float32) if x.dtype == np.float16 else x for name, x in inputs.items()}
    (exact,) = ort.InferenceSession(_save(tmp_path, weights)).run(["logits"], wide)
    np.testing.assert_allclose(narrow, exact, atol=0.02 * np.abs(exact).max())


def test_every_wrong_tensor_is_named(tmp_path):
    changes = {
        "model.norm.weight": None,
        "model.layers.1.self_attn.q_proj.bias": None,
        "model.layers.2.mlp.up_proj.weight": np.zeros((48, 32), np.float32),
        "lm_head.weight": np.zeros((71, 32), np.float32),
    }
    with pytest.raises(CheckpointError) as caught:
        compose_decoder(CONFIG, _checkpoint(tmp_path, **changes), "float32")
    message = str(caught.value)
    assert all(name in message for name in changes)
    assert "[71, 32] instead of [70, 32]" in message
    assert "\n" not in message


def test_a_redundant_head_and_rotary_buffers_are_ignored(tmp_path):
    changes = {
        HEAD: np.zeros((70, 32), np.float32),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(4, np.float32),
    }
    model = compose_decoder(TIED, _checkpoint(tmp_path, TIED, **changes), "float32").model
    names = {tensor.name for tensor in model.graph.initializer}
    assert EMBEDDING in names
    assert names.isdisjoint(changes)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_the_embedding_table_keeps_the_checkpoints_type(tmp_path, dtype):
    weights = _checkpoint(tmp_path, dtype=dtype)
    write_embedding(weights, tmp_path / "embedding.safetensors")
    expected = weights.read(EMBEDDING)
    assert (tmp_path / "embedding.safetensors").stat().st_size < expected.nbytes + 200
    rows = EmbeddingTable.open(tmp_path / "embedding.safetensors").rows(range(70))
    np.testing.assert_array_equal(rows, expected.astype(np.float32))
