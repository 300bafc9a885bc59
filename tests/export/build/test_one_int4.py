"""One int4: what four engines read back out of their own files is one and the same model."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from storm_edge.export.build.build import build
from storm_edge.export.build.goal import judge
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import prepare
from storm_edge.export.build.tensorrt_llm.checkpoint import write_checkpoint
from storm_edge.export.build.vllm.folder import write_folder
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target

BLOCK = 128
LAYERS = [f"self_attn.{n}_proj" for n in "qkvo"] + [f"mlp.{n}_proj" for n in ("gate", "up", "down")]


def initializers(bundle: Bundle, graph: str) -> dict[str, np.ndarray]:
    model = onnx.load(bundle.path(graph))
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name.startswith("model.layers.2.")}


def matmulnbits(stored: dict[str, np.ndarray], name: str) -> np.ndarray:
    packed, scale = stored[f"{name}.int4"], stored[f"{name}.scale"]
    steps = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1).astype(np.float32) - 8
    return (steps * scale.astype(np.float32)[..., None]).reshape(len(packed), -1)


def dequantize_linear(stored: dict[str, np.ndarray], name: str) -> np.ndarray:
    scale = stored[f"{name}.scale"].astype(np.float32).repeat(BLOCK, axis=0)
    return (stored[f"{name}.int4"].astype(np.float32) * scale).T


def compressed_tensors(stored: dict[str, np.ndarray], name: str) -> np.ndarray:
    words = stored[f"{name}.weight_packed"].view(np.uint32)
    steps = (words[..., None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15).reshape(len(words), -1).astype(
        np.float32
    ) - 8
    assert list(steps.shape) == stored[f"{name}.weight_shape"].tolist()
    return steps * stored[f"{name}.weight_scale"].astype(np.float32).repeat(BLOCK, axis=1)


@pytest.fixture(scope="module")
def trtllm_reader():
    path = Path(__file__).parent / "tensorrt_llm" / "reader.py"
    spec = importlib.util.spec_from_file_location("trtllm_reader", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_onnx_runtime_tensorrt_tensorrt_llm_and_vllm_read_the_same_numbers(
    bundle: Path, tmp_path: Path, copy_of, trtllm_reader
) -> None:
    opened = Bundle.open(copy_of(bundle))
    record = build(opened, target("cpu"), BuildOptions("fp32", "int4", allow_mismatch=True, threads=1))
    options = BuildOptions("fp16", "int4", stages=("decoder",))
    for_tensorrt, _ = prepare(opened, judge(opened, target("thor"), options, probe()))
    on_jetpack_6, _ = prepare(opened, judge(opened, target("orin"), replace(options, tensorrt="10.3"), probe()))
    (tmp_path / "trtllm").mkdir()
    write_checkpoint(opened, tmp_path / "trtllm", "int4")
    (tmp_path / "hf").mkdir()
    write_folder(opened, tmp_path / "hf", "int4")
    ort, jetpack = initializers(opened, record.graphs["decoder"]), initializers(opened, on_jetpack_6["decoder"])
    trt, hf = initializers(opened, for_tensorrt["decoder"]), load_file(tmp_path / "hf" / "model.safetensors")
    trtllm = trtllm_reader.Checkpoint(tmp_path / "trtllm").whole(2)
    for layer in LAYERS:
        name = f"model.layers.2.{layer}.weight"
        expected = matmulnbits(ort, name)
        for made in (
            matmulnbits(jetpack, name),
            dequantize_linear(trt, name),
            trtllm[f"{layer}.weight"],
            compressed_tensors(hf, name.removesuffix(".weight")),
        ):
            assert np.array_equal(made, expected), layer
