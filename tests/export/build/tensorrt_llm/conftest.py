"""A numpy reader of TensorRT-LLM's checkpoints, and bundles that hold a language model alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from storm_edge.export.checkpoint.shapes import language_shapes
from storm_edge.export.checkpoint.weights import Weights, convert, write_safetensors
from storm_edge.export.initialize import draw
from storm_edge.export.trace.decoder import compose_decoder
from storm_edge.export.trace.embedding import write_embedding
from storm_edge.runtime.bundle.manifest import Bundle, FileSpec, GraphSpec, Manifest
from storm_edge.runtime.config.schema import DType, LanguageConfig, StormConfig

FILES = ("decoder.onnx", "decoder.data", "embedding.safetensors")
MakeBundle = Callable[[LanguageConfig, DType], Bundle]


@pytest.fixture(scope="session")
def reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trtllm_reader", Path(__file__).parent / "reader.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def decoder_bundle(tmp_path: Path) -> MakeBundle:
    """Makes a bundle of a random language model; its checkpoint lies beside it as `llm`."""

    def make(config: LanguageConfig, dtype: DType) -> Bundle:
        root, source = tmp_path / "bundle", tmp_path / "llm"
        (root / "graphs").mkdir(parents=True)
        source.mkdir()
        shapes = language_shapes(config)
        tensors = {name: convert(draw(name, shape, 0), dtype, name) for name, shape in shapes.items()}
        write_safetensors(source / "model.safetensors", tensors)
        with Weights.open(source) as weights:
            compose_decoder(config, weights, dtype).save(root / "graphs" / "decoder.onnx", "decoder.data")
            write_embedding(weights, root / "graphs" / "embedding.safetensors")
        graph = GraphSpec(file="graphs/decoder.onnx", data="graphs/decoder.data", opset=24, inputs=[], outputs=[])
        manifest = Manifest.model_construct(  # all that is read of it
            schema_version=1,
            config=StormConfig(dtype=dtype, llm=config),
            dtype=dtype,
            graphs={"decoder": graph},
            embedding="graphs/embedding.safetensors",
            tokenizer="tokenizer",
            clips=[],
            operators={},
            checkpoint_sha256="",
            versions={},
            files={f"graphs/{name}": FileSpec(size=0, sha256="0" * 64) for name in FILES},
        )
        return Bundle(root, manifest, "0" * 64)

    return make
