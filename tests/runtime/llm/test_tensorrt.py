"""The decoder on a GPU whose work is done late, held against ONNX Runtime's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.newline import Newline
from storm_edge.runtime.llm.onnxruntime import OnnxRuntimeDecoder
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.llm.stepwise import StepwiseGenerator

GREEDY = SamplingOptions(max_tokens=6)
TOKENS = [5, 9, 2, 7, 7, 1]


@pytest.fixture
def visual() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(1, 3, 16, 128)).astype(np.float32)


def reference(bundle: Bundle) -> StepwiseGenerator:
    """The same decoder on the CPU."""
    table = EmbeddingTable.open(bundle.path(bundle.manifest.embedding))
    return StepwiseGenerator(OnnxRuntimeDecoder(bundle.graph("decoder"), bundle.config.llm, table, 128, threads=1))


def prompt(generator: Any, visual: np.ndarray, video: int = 1) -> SplicedPrompt:
    """54 tokens: more than one chunk of prefill, and a last one of its own."""
    rows = generator.visual_rows(generator.device.put(visual), Newline(7, 16))
    return SplicedPrompt([1, 2], rows, [3], video)


@pytest.mark.parametrize("two_profiles", [False, True])
@pytest.mark.parametrize("graph", ["0", "1"])
def test_no_work_overtakes_another_between_a_prompt_and_its_logits(
    machine: Any, engines: Any, visual: np.ndarray, monkeypatch: pytest.MonkeyPatch, two_profiles: bool, graph: str
) -> None:
    monkeypatch.setenv("STORM_CUDA_GRAPH", graph)
    opened, record = engines(two_profiles)
    ours, theirs = Stages.load(opened, record).generator, reference(opened)
    for tokens in (TOKENS, TOKENS[::-1]):
        logits = ours.forced(prompt(ours, visual), tokens)
        np.testing.assert_allclose(logits, theirs.forced(prompt(theirs, visual), tokens), atol=1e-4)
    assert (machine.gpu.graphs_launched > 0) == (graph == "1")
    assert machine.gpu.dispatched == []


@pytest.mark.parametrize("two_profiles", [False, True])
def test_greedy_tokens_are_the_references_and_one_costs_the_host_16_bytes(
    machine: Any, engines: Any, visual: np.ndarray, two_profiles: bool
) -> None:
    opened, record = engines(two_profiles)
    ours, theirs = Stages.load(opened, record).generator, reference(opened)
    machine.gpu.to_host.clear()
    answers = [list(ours.start(prompt(ours, visual, video), GREEDY, ())) for video in (1, 2)]
    assert machine.gpu.to_host == [16] * 12
    assert answers == [list(theirs.start(prompt(theirs, visual, video), GREEDY, ())) for video in (1, 2)]


def test_sampling_takes_the_logits(machine: Any, engines: Any, visual: np.ndarray) -> None:
    opened, record = engines()
    ours, theirs = Stages.load(opened, record).generator, reference(opened)
    options = SamplingOptions(max_tokens=6, temperature=1.5, seed=3, repetition_penalty=1.2)
    assert list(ours.start(prompt(ours, visual), options, ())) == list(
        theirs.start(prompt(theirs, visual), options, ())
    )


def test_keys_and_values_are_held_once(machine: Any, engines: Any) -> None:
    opened, record = engines()
    Stages.load(opened, record)
    llm = opened.config.llm
    cache = 2 * llm.num_hidden_layers * llm.num_key_value_heads * 128 * llm.head_dim * 4
    held = sum(block.size for block in machine.gpu.blocks)
    assert cache <= held < cache + 2**18
    for context in machine.tensorrt.made[2:]:
        for i in range(llm.num_hidden_layers):
            assert context.addresses[f"past_key_{i}"] == context.addresses[f"present_key_{i}"]


def test_a_step_binds_no_address_again(machine: Any, engines: Any, visual: np.ndarray) -> None:
    generator = Stages.load(*engines(True)).generator
    bound = [context.bound for context in machine.tensorrt.made[2:]]
    list(generator.start(prompt(generator, visual), GREEDY, ()))
    assert [context.bound for context in machine.tensorrt.made[2:]] == bound


def test_a_step_is_put_into_the_stream_twice_and_then_replayed(machine: Any, engines: Any, visual: np.ndarray) -> None:
    generator = Stages.load(*engines(True)).generator
    step = machine.tensorrt.made[2]
    generator.forced(prompt(generator, visual), TOKENS)
    assert (step.enqueued, machine.gpu.graphs_launched) == (2, 4)  # once to run, once to capture


def test_the_step_is_captured_again_where_the_memory_for_activations_has_moved(
    machine: Any, engines: Any, visual: np.ndarray
) -> None:
    opened, record = engines(True)
    stages = Stages.load(opened, record)
    generator, theirs = stages.generator, reference(opened)
    step = machine.tensorrt.made[2]
    generator.forced(prompt(generator, visual), TOKENS)
    before = step.memory
    stages.vision(np.zeros((8, 64, 64, 3), np.uint8))  # takes a larger block
    logits = generator.forced(prompt(generator, visual), TOKENS)
    assert step.memory != before
    assert step.enqueued == 4
    np.testing.assert_allclose(logits, theirs.forced(prompt(theirs, visual), TOKENS), atol=1e-4)


def test_an_engine_that_cannot_be_captured_runs_without_a_graph_and_says_so(
    machine: Any, engines: Any, visual: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    opened, record = engines()
    machine.tensorrt.capturable = False
    ours, theirs = Stages.load(opened, record).generator, reference(opened)
    logits = ours.forced(prompt(ours, visual), TOKENS)
    np.testing.assert_allclose(logits, theirs.forced(prompt(theirs, visual), TOKENS), atol=1e-4)
    assert machine.gpu.graphs_launched == 0
    assert [r.message for r in caplog.records if "cannot be captured as a CUDA graph" in r.message] != []


def test_too_few_tokens_for_the_profile_of_prefill_go_one_by_one(machine: Any, engines: Any, tmp_path: Path) -> None:
    opened, record = engines(True, least=8)
    ours, theirs = (Stages.load(opened, record).generator, reference(opened))
    for model in (ours.model, theirs.model):
        model.append(model.embed(TOKENS))
    logits = [x.model.device.host(x.model.append(x.model.embed([4, 4, 8]))) for x in (ours, theirs)]
    np.testing.assert_allclose(*logits, atol=1e-4)
