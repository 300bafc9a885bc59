"""The decoder graph, canonical or fused, on ONNX Runtime's CPU provider."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.engine_graphs import engine_graph
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import LanguageConfig
from storm_edge.runtime.config.sizes import CHUNK
from storm_edge.runtime.errors import BundleError, EngineError, UsageError
from storm_edge.runtime.llm.base import Generator
from storm_edge.runtime.llm.decoder import StepwiseDecoder
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.kv_cache import KvCache
from storm_edge.runtime.llm.stepwise import StepwiseGenerator
from storm_edge.runtime.machine.packages import import_onnxruntime
from storm_edge.runtime.sessions.device import HOST, Device, Tensor
from storm_edge.runtime.sessions.onnxruntime import FLOATS, create_session


class OnnxRuntimeDecoder(StepwiseDecoder):
    """Implements `LanguageModel`."""

    def __init__(
        self,
        graph_path: Path,
        config: LanguageConfig,
        embedding: EmbeddingTable,
        max_length: int,
        chunk: int = CHUNK,
        threads: int | None = None,
    ) -> None:
        """Load the graph; raises EngineError if ONNX Runtime cannot, BundleError if it is not `config`'s decoder."""
        check_length(config, max_length)
        super().__init__(embedding, max_length, HOST, chunk)
        self._config = config
        self._session = create_session(graph_path, threads)
        self._dtype = FLOATS[check_decoder(graph_path, config, embedding, self._session, FLOATS)]
        self._cache = self._empty_cache()

    def _empty_cache(self) -> KvCache:
        config = self._config
        return KvCache(cache_names(config), config.num_key_value_heads, config.head_dim, self._dtype, self._capacity)

    def worker(self) -> OnnxRuntimeDecoder:
        """Another one with its own cache; ONNX Runtime's sessions may be run from several threads at once."""
        other = copy.copy(self)
        other._cache, other._position = self._empty_cache(), 0
        return other

    def _run(self, embeds: Tensor, start: int) -> Tensor:
        count = len(embeds)
        self._cache.fit(start + count, kept=start)
        binding = self._session.io_binding()
        # Named, so that they outlive the run: a binding refers to their memory.
        inputs = {
            "inputs_embeds": np.ascontiguousarray(HOST.host(embeds)[None], self._dtype),  # (1, S, D)
            "position_ids": np.arange(start, start + count, dtype=np.int64)[None],  # (1, S)
            "write_indices": np.array([start], np.int64),
        }
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        self._cache.bind(binding)
        logits = np.empty((1, 1, self._config.vocab_size), np.float32)
        binding.bind_ortvalue_output("logits", import_onnxruntime().OrtValue.ortvalue_from_numpy(logits))
        try:
            self._session.run_with_iobinding(binding)
        # ONNX Runtime's exceptions share no base of their own.
        except Exception as e:
            raise EngineError(
                f"the language model failed at tokens {start} to {start + count} ({_line(e)}):"
                " use fewer frames, or check the bundle with storm verify."
            ) from e
        return logits.reshape(-1)


def open_generator(bundle: Bundle, record: EngineRecord, device: Device, threads: int | None) -> Generator:
    """The language model of an engine on a CPU, whose `device` is the host; raises EngineError, BundleError."""
    llm = bundle.config.llm
    model = OnnxRuntimeDecoder(
        engine_graph(bundle, record, "decoder"),
        llm,
        EmbeddingTable.open(bundle.file(bundle.manifest.embedding)),
        max_length=record.max_length or llm.max_position_embeddings,
        threads=threads,
    )
    return StepwiseGenerator(model)


def check_length(config: LanguageConfig, max_length: int) -> None:
    """Raise UsageError for more tokens than the language model was made for."""
    if not 1 <= max_length <= config.max_position_embeddings:
        raise UsageError(
            f"a length of {max_length} tokens is outside what the language model was made for:"
            f" choose 1 to {config.max_position_embeddings}."
        )


def cache_names(config: LanguageConfig) -> list[tuple[str, str]]:
    """The inputs and outputs that share a key-value buffer."""
    return [
        (f"past_{kind}_{i}", f"present_{kind}_{i}")
        for i in range(config.num_hidden_layers)
        for kind in ("key", "value")
    ]


def check_decoder(
    path: Path, config: LanguageConfig, embedding: EmbeddingTable, session: Any, types: Collection[str]
) -> str:
    """The graph's floating type, "tensor(float16)" for one.

    Raises BundleError where its inputs and the table are not those of `config`'s decoder, or the type none of `types`.
    """
    found: dict[str, tuple[str, list[object]]] = {x.name: (x.type, list(x.shape)) for x in session.get_inputs()}
    kind = found.get("inputs_embeds", ("", []))[0]
    cache: tuple[str, list[object]] = (kind, [1, config.num_key_value_heads, "length", config.head_dim])
    expected: dict[str, tuple[str, list[object]]] = {
        "inputs_embeds": (kind, [1, "sequence", config.hidden_size]),
        "position_ids": ("tensor(int64)", [1, "sequence"]),
        "write_indices": ("tensor(int64)", [1]),
        **{past: cache for past, _ in cache_names(config)},
    }
    wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    if wrong or kind not in types:
        raise BundleError(
            f"{path} is not the decoder that the bundle's configuration describes (input"
            f" {', '.join(wrong) or 'inputs_embeds: ' + kind}): export the bundle again."
        )
    if (embedding.vocab_size, embedding.width) != (config.vocab_size, config.hidden_size):
        raise BundleError(
            f"the embedding table beside {path} is [{embedding.vocab_size}, {embedding.width}] instead of"
            f" [{config.vocab_size}, {config.hidden_size}]: export the bundle again."
        )
    return kind


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
