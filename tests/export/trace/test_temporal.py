from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bimba_block import selector_config
from onnx import numpy_helper
from onnxruntime import InferenceSession
from safetensors.numpy import load_file, save_file

from storm_edge.export.build.onnxruntime.kernels import without_kernel
from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.initialize import initialize
from storm_edge.export.network.load import load_temporal
from storm_edge.export.network.temporal import TemporalEncoder, cast_for_export
from storm_edge.export.passes.narrow import narrow
from storm_edge.export.trace.temporal import trace_temporal
from storm_edge.runtime.config.schema import DType, StormConfig

A, D, DELTA_BIAS = 2, 5, 7  # positions among the scan's inputs


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, config: StormConfig) -> Path:
    """A bf16 checkpoint that keeps the scan's constants in fp32, A larger than what the exporter folds by itself."""
    temporal = config.temporal.model_copy(update={"num_layers": 1, "d_state": 64})
    path = tmp_path_factory.mktemp("mixed") / "checkpoint"
    initialize(config.model_copy(update={"dtype": "bfloat16", "temporal": temporal}), path)
    tensors = load_file(path / "temporal.safetensors")
    rng = np.random.default_rng(0)
    for name, values in tensors.items():
        if name.endswith(("_log", ".D", ".D_b")) or ("dt_proj" in name and name.endswith("bias")):
            assert values.dtype == np.float32
            tensors[name] = (values + rng.uniform(-0.3, 0.3, values.shape)).astype(np.float32)
    assert sum(t.dtype == np.float32 for t in tensors.values()) == 6
    save_file(tensors, path / "temporal.safetensors")
    return path


def scan_constants(model: onnx.ModelProto) -> dict[str, list[np.ndarray]]:
    """What the two scans are given, forward first."""
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    scans = [n for n in model.graph.node if n.op_type == "SelectiveScan"]
    return {k: [values[n.input[i]] for n in scans] for k, i in (("A", A), ("D", D), ("bias", DELTA_BIAS))}


def check(model: onnx.ModelProto, checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "temporal.safetensors")
    found = scan_constants(model)
    for i, suffix in enumerate(("", "_b")):
        at = "layers.0.mixer."
        expected = {
            "A": (-np.exp(tensors[f"{at}A{suffix}_log"].astype(np.float64))).astype(np.float32),
            "D": tensors[f"{at}D{suffix}"],
            "bias": tensors[f"{at}dt_proj{suffix}.bias"],
        }
        for key, values in expected.items():
            assert found[key][i].dtype == np.float32
            np.testing.assert_array_equal(found[key][i], values, err_msg=f"{key}{suffix}")


def traced(checkpoint: Path, dtype: DType) -> onnx.ModelProto:
    opened = Checkpoint.open(checkpoint)
    encoder = load_temporal(opened, opened.config, dtype)
    cast_for_export(encoder, getattr(torch, dtype))
    return trace_temporal(encoder, opened.config, getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_scans_constants_are_the_files_in_an_export_of_half_type(dtype: DType, mixed: Path) -> None:
    check(traced(mixed, dtype), mixed)


def test_the_scans_constants_are_the_files_in_an_fp32_export_and_its_narrowed_graphs(mixed: Path) -> None:
    model = traced(mixed, "float32")
    check(model, mixed)
    for dtype in ("float16", "bfloat16"):
        narrowed = onnx.ModelProto()
        narrowed.CopyFrom(model)
        narrow(narrowed, {}, dtype)
        assert any(
            t.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16) for t in narrowed.graph.initializer
        )
        check(narrowed, mixed)


@torch.no_grad()
def test_a_selectors_graph_takes_any_length_and_has_kernels_in_cuda() -> None:
    torch.manual_seed(0)
    encoder = TemporalEncoder(selector_config()).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model = trace_temporal(encoder, selector_config(), torch.float32)
    assert without_kernel(model) == []
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for frames in (1, 5, 30):
        tokens = torch.randn(1, frames, 25, 8)
        (visual,) = session.run(None, {"tokens": tokens.numpy()})
        np.testing.assert_allclose(visual, encoder(tokens).numpy(), rtol=1e-5, atol=1e-5)
