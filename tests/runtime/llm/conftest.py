"""One language model as every engine reads it: a bundle in bf16, TensorRT-LLM's checkpoint, the Hugging Face folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.tensorrt_llm.checkpoint import write_checkpoint
from storm_edge.export.build.vllm.folder import write_folder
from storm_edge.export.export_bundle import export_bundle
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.machine.targets import target

sys.path.insert(0, str(Path(__file__).parent))  # for the recorded packages beside the tests


@pytest.fixture(scope="session")
def reader() -> ModuleType:
    """The numpy reader of TensorRT-LLM's checkpoints."""
    path = Path(__file__).parents[2] / "export" / "build" / "tensorrt_llm" / "reader.py"
    spec = importlib.util.spec_from_file_location("trtllm_reader", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def bf16_bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random checkpoint's bundle in bf16, with the engine cpu-fp32, which has the same weights."""
    path = tmp_path_factory.mktemp("bf16") / "bundle"
    export_bundle(checkpoint, path, dtype="bfloat16")
    build(Bundle.open(path), target("cpu"), BuildOptions())
    return path


@pytest.fixture(scope="session")
def trtllm_checkpoint(bf16_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its language model as TensorRT-LLM compiles it."""
    folder = tmp_path_factory.mktemp("trtllm")
    write_checkpoint(Bundle.open(bf16_bundle), folder, "bf16")
    return folder


@pytest.fixture(scope="session")
def hf_folder(bf16_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its language model as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("hf")
    write_folder(Bundle.open(bf16_bundle), folder, "bf16")
    return folder
