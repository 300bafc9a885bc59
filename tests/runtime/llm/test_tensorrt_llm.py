"""The Executor of TensorRT-LLM, driven against its recorded description with a tiny checkpoint behind it."""

from __future__ import annotations

import gc
import importlib.metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import recorded_trtllm
from recorded_trtllm import engine_folder

from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import EngineError, UsageError
from storm_edge.runtime.llm import tensorrt_llm, tensorrt_llm_package
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.llm.tensorrt_llm import TensorRtLlmGenerator

GREEDY = SamplingOptions(max_tokens=6)
BEFORE, AFTER = [5, 6, 7, 8, 9], [20, 21, 22]


@pytest.fixture
def package(trtllm_checkpoint: Path, reader: ModuleType, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made: SimpleNamespace = recorded_trtllm.recorded(reader.Checkpoint(trtllm_checkpoint))
    monkeypatch.setattr(tensorrt_llm, "executor_bindings", lambda: made)
    return made


@pytest.fixture
def generator(
    package: SimpleNamespace, trtllm_checkpoint: Path, bf16_bundle: Path, tmp_path: Path
) -> TensorRtLlmGenerator:
    opened = Bundle.open(bf16_bundle)
    table = EmbeddingTable.open(opened.path(opened.manifest.embedding))
    return TensorRtLlmGenerator(engine_folder(tmp_path / "engine", trtllm_checkpoint), table, opened.sha256)


def prompt(video: int = 1, seed: int = 1, after: list[int] | None = None, rows: int = 17) -> SplicedPrompt:
    import ml_dtypes

    visual = np.random.default_rng(seed).normal(0, 0.5, (rows, 128)).astype(ml_dtypes.bfloat16).astype(np.float32)
    return SplicedPrompt(BEFORE, visual, AFTER if after is None else after, video)


def tokens(
    generator: Any, asked: SplicedPrompt, options: SamplingOptions = GREEDY, ends: tuple[int, ...] = ()
) -> list[int]:
    return list(generator.start(asked, options, ends))


def test_the_same_video_in_another_bundle_is_another_video(
    package: SimpleNamespace, trtllm_checkpoint: Path, bf16_bundle: Path, tmp_path: Path
) -> None:
    opened = Bundle.open(bf16_bundle)
    table = EmbeddingTable.open(opened.path(opened.manifest.embedding))
    seen = []
    for name in ("a", "b"):
        made = TensorRtLlmGenerator(engine_folder(tmp_path / name, trtllm_checkpoint), table, name)
        made.start(prompt(), GREEDY, ())
        extra = package.made[-1].requests[1].prompt_tuning_config.input_token_extra_ids
        assert extra[: len(BEFORE)] + extra[-len(AFTER) :] == [0] * (len(BEFORE) + len(AFTER))  # text is text
        assert len(set(extra)) == 2
        seen.append(max(extra))
    assert seen[0] != seen[1]


def test_visual_tokens_have_the_ids_behind_the_vocabulary(
    generator: TensorRtLlmGenerator, package: SimpleNamespace, bf16_bundle: Path
) -> None:
    vocabulary = Bundle.open(bf16_bundle).config.llm.vocab_size
    generator.start(prompt(rows=3), GREEDY, (2, 1))
    request = package.made[-1].requests[1]
    assert request.input_token_ids == [*BEFORE, vocabulary, vocabulary + 1, vocabulary + 2, *AFTER]
    assert (request.end_id, request.stop_words, request.max_tokens, request.streaming) == (1, [[1], [2]], 6, True)


def test_streams_go_on_beside_each_other(generator: TensorRtLlmGenerator) -> None:
    expected = [tokens(generator, prompt(seed, seed)) for seed in (1, 2)]
    streams = [generator.start(prompt(seed, seed), GREEDY, ()) for seed in (1, 2)]
    both = list(zip(*streams, strict=True))
    assert [list(x) for x in zip(*both, strict=True)] == expected


def test_a_stream_that_nobody_holds_is_cancelled_and_the_next_answer_is_right(
    generator: TensorRtLlmGenerator, package: SimpleNamespace
) -> None:
    expected = tokens(generator, prompt(2, 2))
    stream = generator.start(prompt(1, 1), GREEDY, ())
    next(stream)
    del stream
    gc.collect()
    assert package.made[-1].cancelled == [2]  # the first was read to its end
    assert tokens(generator, prompt(2, 2)) == expected


def test_sampling_options_have_their_names_there(generator: TensorRtLlmGenerator, package: SimpleNamespace) -> None:
    generator.start(prompt(), SamplingOptions(temperature=2.0, top_p=0.9, top_k=5, seed=7, max_tokens=12), ())
    sampling = package.made[-1].requests[1].sampling_config
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (2.0, 0.9, 5, 7)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (prompt(rows=65), "the prompt has 65 visual tokens, this engine takes 64"),
        (prompt(rows=60, after=[1] * 40), "the prompt has 105 tokens, this engine takes 96"),
    ],
)
def test_a_prompt_that_is_too_long_is_refused_before_any_work(
    generator: TensorRtLlmGenerator, package: SimpleNamespace, asked: SplicedPrompt, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        generator.start(asked, GREEDY, ())
    assert package.made[-1].requests == {}


def test_a_repetition_penalty_that_would_mean_something_else_is_refused(generator: TensorRtLlmGenerator) -> None:
    with pytest.raises(UsageError, match="counts the prompt's tokens as repeated too"):
        generator.start(prompt(), SamplingOptions(repetition_penalty=1.2), ())


def test_a_request_that_fails_is_an_engine_error(generator: TensorRtLlmGenerator, package: SimpleNamespace) -> None:
    package.made[-1].fails = "Encountered an error\nin forwardAsync"
    with pytest.raises(EngineError, match="TensorRT-LLM: Encountered an error in forwardAsync"):
        generator.start(prompt(), GREEDY, ())


def test_a_worker_shares_the_engine(generator: TensorRtLlmGenerator, package: SimpleNamespace) -> None:
    generator.worker()
    assert len(package.made) == 1


def test_an_engine_for_several_ranks_gets_a_process_a_rank(
    package: SimpleNamespace,
    trtllm_checkpoint: Path,
    bf16_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = Bundle.open(bf16_bundle)
    table = EmbeddingTable.open(opened.path(opened.manifest.embedding))
    monkeypatch.setattr(tensorrt_llm, "worker_program", lambda: Path("/x/executorWorker"))
    TensorRtLlmGenerator(engine_folder(tmp_path / "engine", trtllm_checkpoint, ranks=2), table, "")
    parallel = package.made[-1].settings["executor_config"].parallel_config
    assert parallel.communication_mode.value == "ORCHESTRATOR"
    assert parallel.orchestrator_config.worker_executable_path == "/x/executorWorker"


def test_a_folder_without_an_engine_is_refused(package: SimpleNamespace, bf16_bundle: Path, tmp_path: Path) -> None:
    opened = Bundle.open(bf16_bundle)
    table = EmbeddingTable.open(opened.path(opened.manifest.embedding))
    with pytest.raises(EngineError, match="holds no engine of TensorRT-LLM"):
        TensorRtLlmGenerator(tmp_path, table, "")


def test_the_description_refuses_what_the_bindings_refuse() -> None:
    api = recorded_trtllm.recorded(SimpleNamespace(config={}))
    for wrong in (
        lambda: api.Request([1], 4, True),  # by name only
        lambda: api.Request(input_token_ids=np.array([1]), max_tokens=4),
        lambda: api.Request(input_token_ids=[1]),
        lambda: api.Request(input_token_ids=[1], max_tokens=4, prompt_table=None),
        lambda: api.SamplingConfig(temperature="1"),
        lambda: api.PromptTuningConfig(embedding_table=np.zeros((1, 2))),
        lambda: api.Executor("x", "DECODER_ONLY", api.ExecutorConfig()),
    ):
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (
            "1.3.0rc20",
            "1.3.0rc20 has no compiled engines .*was removed with 1.3: install .*1.2.1.*--llm tensorrt",
        ),
        ("0.21.0", "0.21.0 is installed, .* from 1.2 on and before 1.3: pip install tensorrt_llm==1.2.1"),
    ],
)
def test_other_lines_of_the_package_are_refused(version: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    with pytest.raises(EngineError, match=said):
        tensorrt_llm_package.require_package()


def test_without_the_package_the_message_says_what_to_install() -> None:
    with pytest.raises(EngineError, match=r"tensorrt_llm is not installed: pip install tensorrt_llm==1.2.1"):
        tensorrt_llm_package.executor_bindings()
