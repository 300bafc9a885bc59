"""A bundle's language model in fp32 on the CPU, as calibration asks it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from storm_edge.calibration.graphs import fp32_graph
from storm_edge.export.graph_file import Reader, save_model
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.llm.base import LanguageModel
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.onnxruntime import OnnxRuntimeDecoder
from storm_edge.runtime.machine.probe import parse_memory


def load_llm(bundle: Bundle, threads: int | None) -> Callable[[], LanguageModel] | None:
    """Loads the language model in fp32 when it is first asked for; None where it needs over half the free memory."""
    graph = bundle.manifest.graphs["decoder"]
    stored = sum(bundle.manifest.files[name].size for name in (graph.file, graph.data) if name)
    needed = stored * (1 if bundle.manifest.dtype == "float32" else 2) / 2**30
    free = parse_memory(Path("/proc/meminfo").read_text(encoding="ascii")).get("MemAvailable", 0.0)
    if needed > free / 2:
        return None
    loaded: list[LanguageModel] = []

    def load() -> LanguageModel:
        if not loaded:
            loaded.append(fp32_decoder(bundle, threads))
        return loaded[0]

    return load


def fp32_decoder(bundle: Bundle, threads: int | None) -> OnnxRuntimeDecoder:
    """The bundle's language model in fp32."""
    if bundle.manifest.dtype == "float32":
        return _decoder(bundle, bundle.graph("decoder"), threads)
    return decoder_of(bundle, *fp32_graph(bundle, "decoder", {}), threads)


def decoder_of(
    bundle: Bundle, model: onnx.ModelProto, readers: dict[str, Reader], threads: int | None
) -> OnnxRuntimeDecoder:
    """A decoder graph, loaded."""
    with TemporaryDirectory(prefix="storm-calibrate-") as folder:
        save_model(model, Path(folder) / "decoder.onnx", "decoder.data", readers)
        return _decoder(bundle, Path(folder) / "decoder.onnx", threads)


def _decoder(bundle: Bundle, path: Path, threads: int | None) -> OnnxRuntimeDecoder:
    llm = bundle.config.llm
    embedding = EmbeddingTable.open(bundle.file(bundle.manifest.embedding))
    return OnnxRuntimeDecoder(path, llm, embedding, max_length=llm.max_position_embeddings, threads=threads)
