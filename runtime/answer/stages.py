"""The three stages of an engine, loaded: vision, temporal, decoder, with the embedding table beside it.

pipeline and verify both drive these, so what is verified is what answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from storm_edge.plugins.libraries import TENSORRT, build_command, find_library
from storm_edge.runtime.bundle.engine import EngineRecord, engine_graph
from storm_edge.runtime.bundle.manifest import STAGES, Bundle, Stage, file_sha256
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.llm.base import Generator
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.onnxruntime import OnnxRuntimeDecoder
from storm_edge.runtime.llm.stepwise import StepwiseGenerator
from storm_edge.runtime.machine.packages import has_cuda
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.sessions.base import Session
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession

VISION_BATCH = 8  # frames; more gain nothing on a CPU, and memory for activations grows with them
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Stages:
    """An engine's loaded graphs."""

    vision_session: Session
    temporal_session: Session
    generator: Generator
    temporal_pool: int

    @classmethod
    def load(cls, bundle: Bundle, record: EngineRecord, *, threads: int | None = None) -> Stages:
        """Load the graphs an engine names; raises EngineError or BundleError."""
        missing = [stage for stage in STAGES if stage not in record.graphs]
        if missing or record.state != "built":
            what = f"has no {' and no '.join(missing)}" if missing else f"is only {record.state}"
            raise EngineError(f"engine {record.name} {what}: `storm build {bundle.root} --target {record.target}`.")
        embedding = EmbeddingTable.open(bundle.file(bundle.manifest.embedding))
        loaded = (
            _load_tensorrt(bundle, record, embedding, threads)
            if record.api
            else _load_onnxruntime(bundle, record, embedding, threads)
        )
        return cls(*loaded, temporal_pool=bundle.config.reduction.temporal_pool)

    def worker(self) -> Stages:
        """The same loaded graphs with a generator of its own sequence; raises EngineError."""
        return replace(self, generator=self.generator.worker())

    def vision(self, frames: NDArray[np.uint8]) -> Float32:
        """Frames (T, H, W, 3) -> tokens (T, N, D), a batch at a time."""
        batches = [
            self.vision_session.run(frames=frames[i : i + VISION_BATCH])["tokens"]
            for i in range(0, len(frames), VISION_BATCH)
        ]
        return np.concatenate(batches)

    def temporal(self, tokens: Float32) -> Float32:
        """Tokens (T, N, D) -> visual tokens (1, ceil(T / k), N / p, D); the last frame fills up the last group of k."""
        if missing := -len(tokens) % self.temporal_pool:
            tokens = np.concatenate([tokens, np.repeat(tokens[-1:], missing, axis=0)])
        return self.temporal_session.run(tokens=tokens[None])["visual_tokens"]


def _load_onnxruntime(
    bundle: Bundle, record: EngineRecord, embedding: EmbeddingTable, threads: int | None
) -> tuple[Session, Session, Generator]:
    path = {stage: engine_graph(bundle, record, stage) for stage in STAGES}
    llm = bundle.config.llm
    return (
        OnnxRuntimeSession(path["vision"], threads, literal=record.simulated),
        OnnxRuntimeSession(path["temporal"], threads, literal=record.simulated),
        StepwiseGenerator(
            OnnxRuntimeDecoder(path["decoder"], llm, embedding, max_length=llm.max_position_embeddings, threads=threads)
        ),
    )


def _load_tensorrt(
    bundle: Bundle, record: EngineRecord, embedding: EmbeddingTable, threads: int | None
) -> tuple[Session, Session, Generator]:
    from storm_edge.runtime.llm.tensorrt import TensorRTDecoder
    from storm_edge.runtime.sessions.tensorrt import TensorRTSession

    gpu = next(iter(probe().gpus), None)
    if gpu and gpu.sm and record.sms and gpu.sm not in record.sms:
        compiled = ", ".join(map(str, record.sms))
        raise EngineError(
            f"engine {record.name} was compiled for SM {compiled}, this machine has {gpu.name} (SM {gpu.sm}): build it"
            " again here."
        )
    plugin = find_library(TENSORRT)
    if record.plugin_sha256 and (plugin is None or file_sha256(plugin) != record.plugin_sha256):
        here = f"this machine has another one, {plugin}" if plugin else f"this machine has none (`{build_command()}`)"
        raise EngineError(
            f"engine {record.name} was built with plugin {record.plugin_sha256[:12]}, {here}: build it again here."
        )
    plugins = [plugin] if plugin and record.plugin_sha256 else []

    def session(stage: Stage) -> TensorRTSession:
        assert record.api is not None
        return TensorRTSession(bundle.located(record.graphs[stage]), record.api, record.versions["tensorrt"], plugins)

    vision, temporal = session("vision"), session("temporal")
    if record.llm_api == "onnxruntime":
        return vision, temporal, load_onnxruntime_decoder(bundle, record, embedding, threads)
    decoder = session("decoder")
    capacity = decoder.largest("past_key_0")[2]
    chunk = decoder.largest("inputs_embeds")[1]
    model = TensorRTDecoder(decoder, bundle.config.llm, embedding, capacity, chunk)
    return vision, temporal, StepwiseGenerator(model)


def load_onnxruntime_decoder(
    bundle: Bundle, record: EngineRecord, embedding: EmbeddingTable, threads: int | None = None
) -> Generator:
    """The decoder of an engine that leaves it to ONNX Runtime: in CUDA where that can, else on the CPU."""
    llm = bundle.config.llm
    length = record.max_length or llm.max_position_embeddings
    graph = engine_graph(bundle, record, "decoder")
    model = OnnxRuntimeDecoder(graph, llm, embedding, max_length=length, threads=threads, cuda=has_cuda())
    return StepwiseGenerator(model)
