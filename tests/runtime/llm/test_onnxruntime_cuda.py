"""The fused decoder on a GPU whose work is done late, held against the same graph on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from storm_edge.runtime.bundle.engine_graphs import engine_graph
from storm_edge.runtime.bundle.reference import read_clip
from storm_edge.runtime.errors import BundleError, EngineError, UsageError
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.onnxruntime import OnnxRuntimeDecoder
from storm_edge.runtime.llm.onnxruntime_cuda import OnnxRuntimeCudaDecoder, open_generator
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.proof.verify import prompt_rows
from storm_edge.runtime.sessions.cuda import CudaDevice

LENGTH = 128  # less than the engine has
PROMPT = np.random.default_rng(0).standard_normal((40, 128)).astype(np.float32) * 0.1


@pytest.fixture
def parts(on_cuda: Any) -> tuple[Any, ...]:
    """What a decoder is made of: graph, configuration, embedding table, and the longest sequence."""
    opened, record = on_cuda
    embedding = EmbeddingTable.open(opened.file(opened.manifest.embedding))
    return engine_graph(opened, record, "decoder"), opened.config.llm, embedding, LENGTH


def test_logits_are_those_of_the_cpu_in_chunks_as_at_once_and_after_rewinding(process: Any, parts: Any) -> None:
    cpu = OnnxRuntimeDecoder(*parts)
    expected = [cpu.append(PROMPT), cpu.append(PROMPT[:1])]
    for chunk in (64, 7):
        ours = OnnxRuntimeCudaDecoder(*parts, CudaDevice(), chunk)
        for _ in range(2):
            found = [ours.append(ours.device.put(PROMPT)), ours.append(ours.device.put(PROMPT[:1]))]
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(ours.device.host(a), b, atol=2e-2)
            ours.rewind(0)


def test_a_step_waits_for_nothing_and_sends_nothing_to_the_host(process: Any, parts: Any) -> None:
    ours = OnnxRuntimeCudaDecoder(*parts, CudaDevice())
    ours.append(ours.device.put(PROMPT))
    logits = [ours.append(ours.embed([i])) for i in (1, 2, 3)]
    assert process.gpu.to_host == []
    assert sum(stream.synchronized for stream in process.gpu.streams.values()) == 0
    assert ours.device.argmax(logits[-1]) is not None
    assert process.gpu.to_host == [16]


def test_keys_and_values_are_held_once_from_the_start_to_the_end(process: Any, parts: Any) -> None:
    config = parts[1]
    before = process.gpu.taken
    ours = OnnxRuntimeCudaDecoder(*parts, CudaDevice())
    each = config.num_key_value_heads * config.head_dim * LENGTH * 2  # fp16
    assert process.gpu.taken - before == 2 * config.num_hidden_layers * each
    ours.append(ours.device.put(PROMPT))
    (binding,) = process.sessions[-1].bindings
    for past, present in ((f"past_key_{i}", f"present_key_{i}") for i in range(config.num_hidden_layers)):
        assert binding.inputs[past] == binding.outputs[present]
    held = dict(binding.inputs)
    ours.append(ours.embed([1] * (LENGTH - 40)))
    assert {n: a for n, a in binding.inputs.items() if n.startswith("past")} == {
        n: a for n, a in held.items() if n.startswith("past")
    }
    with pytest.raises(UsageError, match="do not fit the 128"):
        ours.append(ours.embed([1]))


def test_a_worker_has_a_cache_of_its_own_on_the_same_weights(process: Any, parts: Any) -> None:
    ours = OnnxRuntimeCudaDecoder(*parts, CudaDevice())
    first = ours.append(ours.device.put(PROMPT))
    sessions = len(process.sessions)
    other = ours.worker()
    other.append(other.device.put(PROMPT[::-1].copy()))
    next_token = ours.append(ours.embed([5]))
    assert (len(process.sessions), other.position, ours.position) == (sessions, 40, 41)
    alone = OnnxRuntimeCudaDecoder(*parts, CudaDevice())
    np.testing.assert_array_equal(ours.device.host(first), alone.device.host(alone.append(PROMPT)))
    np.testing.assert_array_equal(ours.device.host(next_token), alone.device.host(alone.append(alone.embed([5]))))


def test_greedy_tokens_are_the_references(on_cuda: Any) -> None:
    opened, record = on_cuda
    generator = open_generator(opened, record, CudaDevice(), None)
    clip = read_clip(opened, next(iter(opened.manifest.clips)))
    rows = prompt_rows(opened, generator, clip, clip["visual_tokens"])
    prompt = SplicedPrompt(clip["before"].tolist(), rows, clip["after"].tolist())
    stream = generator.start(prompt, SamplingOptions(max_tokens=8), [])
    assert list(stream) == clip["greedy"].tolist()[:8]
    assert generator.capacity == record.max_length == 256


def test_another_models_graph_and_too_long_a_sequence_are_refused(process: Any, parts: Any) -> None:
    graph, config, embedding, _ = parts
    other = config.model_copy(update={"num_key_value_heads": 1})
    with pytest.raises(BundleError, match="is not the decoder that the bundle's configuration describes"):
        OnnxRuntimeCudaDecoder(graph, other, embedding, LENGTH, CudaDevice())
    with pytest.raises(UsageError, match="a length of 0 tokens"):
        OnnxRuntimeCudaDecoder(graph, config, embedding, 0, CudaDevice())


def test_a_cache_too_large_for_the_gpu_is_one_line(process: Any, parts: Any) -> None:
    process.gpu.others = process.gpu.total - 4096
    with pytest.raises(EngineError, match=r"the GPU has not enough memory .*storm plan") as caught:
        OnnxRuntimeCudaDecoder(*parts, CudaDevice())
    assert "\n" not in str(caught.value)
