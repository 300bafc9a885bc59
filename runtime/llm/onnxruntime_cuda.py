"""The fused decoder on ONNX Runtime's CUDA provider. No machine of ours has run it yet.

Its GroupQueryAttention reads the tokens there are, so the key-value cache is as long as the engine's from the start and
is never copied. Past and present are one buffer.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np

from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.engine_graphs import engine_graph
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import LanguageConfig
from storm_edge.runtime.config.sizes import CUDA_CHUNK
from storm_edge.runtime.llm.base import Generator
from storm_edge.runtime.llm.decoder import StepwiseDecoder
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.onnxruntime import cache_names, check_decoder, check_length
from storm_edge.runtime.llm.stepwise import StepwiseGenerator
from storm_edge.runtime.sessions.cuda import CudaDevice
from storm_edge.runtime.sessions.device import Tensor
from storm_edge.runtime.sessions.onnxruntime_cuda import CudaGraph

_TYPES = ("tensor(float16)", "tensor(bfloat16)")  # that its attention has kernels for


class OnnxRuntimeCudaDecoder(StepwiseDecoder):
    """Implements `LanguageModel`: embeddings, cache and logits stay on the GPU."""

    def __init__(
        self,
        graph_path: Path,
        config: LanguageConfig,
        embedding: EmbeddingTable,
        max_length: int,
        device: CudaDevice,
        chunk: int = CUDA_CHUNK,
        threads: int | None = None,
    ) -> None:
        """Raises EngineError where ONNX Runtime cannot load the graph or memory is short, BundleError for another's."""
        check_length(config, max_length)
        super().__init__(embedding, max_length, device, chunk)
        self._config, self._cuda = config, device
        self._graph = CudaGraph(graph_path, device, threads)
        check_decoder(graph_path, config, embedding, self._graph.session, _TYPES)
        self._bind_cache()

    def _bind_cache(self) -> None:
        """Take the cache's buffers, and bind them for good."""
        config, graph = self._config, self._graph
        shape = (1, config.num_key_value_heads, self._capacity, config.head_dim)
        self._binding = graph.session.io_binding()
        self._cache = []
        for past, present in cache_names(config):
            # Zeros: what masked positions are multiplied by must be a number.
            buffer = self._cuda.zeros(shape, graph.dtype(past))
            graph.bind_input(self._binding, past, buffer)
            graph.bind_output(self._binding, present, buffer)
            self._cache.append(buffer)

    def worker(self) -> OnnxRuntimeCudaDecoder:
        """Another one with its own cache, in the same stream; raises EngineError where memory is short."""
        other = copy.copy(self)
        other._position = 0
        other._bind_cache()
        return other

    def _run(self, embeds: Tensor, start: int) -> Tensor:
        cuda, graph, binding, count = self._cuda, self._graph, self._binding, len(embeds)
        with cuda:
            given = cuda.cast(cuda.reshape(embeds, (1, count, self._config.hidden_size)), graph.dtype("inputs_embeds"))
            logits = cuda.empty((1, 1, self._config.vocab_size), "float32")
            graph.bind_input(binding, "inputs_embeds", given)
            positions = cuda.put(np.arange(start, start + count, dtype=np.int64)[None])  # (1, S)
            graph.bind_input(binding, "position_ids", positions)
            # On the host, where the kernels want the lengths that follow from it.
            binding.bind_cpu_input("write_indices", np.array([start], np.int64))
            graph.bind_output(binding, "logits", logits)
            graph.run(binding)
            last: Tensor = cuda.reshape(logits, (-1,))
            return last


def open_generator(bundle: Bundle, record: EngineRecord, device: CudaDevice, threads: int | None) -> Generator:
    """The language model of an engine on the first GPU; raises EngineError, BundleError."""
    llm = bundle.config.llm
    model = OnnxRuntimeCudaDecoder(
        engine_graph(bundle, record, "decoder"),
        llm,
        EmbeddingTable.open(bundle.file(bundle.manifest.embedding)),
        record.max_length or llm.max_position_embeddings,
        device,
        threads=threads,
    )
    return StepwiseGenerator(model)
