"""The pieces against the graph that they were cut from, on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from storm_edge.export.graph_file import save_model
from storm_edge.export.network.temporal import TemporalEncoder, cast_for_export
from storm_edge.export.passes.cut_temporal import cut_temporal
from storm_edge.export.trace.temporal import trace_temporal
from storm_edge.runtime.answer.chunked import ChunkedTemporal, Layer
from storm_edge.runtime.bundle.contract import piece_contract
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession


def traced(config: StormConfig, folder: Path, **temporal: object) -> tuple[StormConfig, onnx.ModelProto]:
    config = config.model_copy(update={"temporal": config.temporal.model_copy(update=temporal)})
    torch.manual_seed(0)
    encoder = TemporalEncoder(config).eval().requires_grad_(False)
    cast_for_export(encoder, torch.float32)
    save_model(trace_temporal(encoder, config, torch.float32), folder / "temporal.onnx", "temporal.data")
    return config, onnx.load(folder / "temporal.onnx", load_external_data=False)


def chunked(config: StormConfig, pieces: dict[str, onnx.ModelProto], folder: Path) -> ChunkedTemporal:
    def session(name: str) -> OnnxRuntimeSession:
        (folder / f"{name}.onnx").write_bytes(pieces[name].SerializeToString())
        return OnnxRuntimeSession(folder / f"{name}.onnx", 1)

    layers = [
        Layer(session(f"{i}.enter"), session(f"{i}.states") if f"{i}.states" in pieces else None, session(f"{i}.mix"))
        for i in range(config.temporal.num_layers)
    ]
    return ChunkedTemporal(layers, session("pool"), config)


@pytest.mark.parametrize("room", [0, 100_000, 1 << 30])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_clip_in_chunks_gives_the_visual_tokens_of_the_whole_to_the_last_bit(
    bidirectional: bool, room: int, config: StormConfig, tmp_path: Path
) -> None:
    config, model = traced(config, tmp_path, bidirectional=bidirectional, num_layers=3)
    encoder = chunked(config, cut_temporal(model, config), tmp_path)
    k = config.reduction.temporal_pool
    tokens = np.random.default_rng(0).normal(size=(7 * k, config.tokens_per_frame, 128)).astype(np.float32)
    whole = OnnxRuntimeSession(tmp_path / "temporal.onnx", 1).run(tokens=tokens[None])["visual_tokens"]
    for frames in (k, 2 * k, 3 * k, 7 * k, 9 * k):
        ours = encoder.run([tokens.copy()], frames, lambda: room)
        np.testing.assert_array_equal(ours, whole, err_msg=f"{frames} frames a chunk")


def test_every_large_weight_is_in_one_piece_and_stays_where_it_was(config: StormConfig, tmp_path: Path) -> None:
    config, model = traced(config, tmp_path)
    pieces = cut_temporal(model, config)
    assert list(pieces) == ["0.enter", "0.states", "0.mix", "1.enter", "1.states", "1.mix", "pool"]
    width, channels = config.llm.hidden_size, config.d_inner
    held = [t.name for piece in pieces.values() for t in piece.graph.initializer if np.prod(t.dims) == width * channels]
    assert len(held) == len(set(held)) == 2 * 3
    for name, piece in pieces.items():
        takes, gives = piece_contract(config, "float32", name)
        assert [v.name for v in piece.graph.input] == [spec.name for spec in takes]
        assert [v.name for v in piece.graph.output] == [spec.name for spec in gives]
        for tensor in piece.graph.initializer:
            if np.prod(tensor.dims) * 4 >= 1024 and tensor.data_type == onnx.TensorProto.FLOAT:
                assert {e.key: e.value for e in tensor.external_data}["location"] == "temporal.data"


def test_an_encoder_without_layers_has_no_pieces(config: StormConfig, tmp_path: Path) -> None:
    config, model = traced(config, tmp_path, num_layers=0)
    assert cut_temporal(model, config) == {}


@pytest.mark.parametrize("operator", ["SelectiveScan", "CausalConv1d"])
@pytest.mark.parametrize("inputs", [[], ["", "", "", "", "", "", "", "", ""], ["nowhere"] * 9])
def test_layers_that_are_none_are_not_cut(
    operator: str, inputs: list[str], config: StormConfig, tmp_path: Path
) -> None:
    config, model = traced(config, tmp_path)
    node = next(node for node in model.graph.node if node.op_type == operator)
    node.input[:] = inputs
    with pytest.raises(ValueError, match="a layer lacks"):
        cut_temporal(model, config)
