"""vLLM's AsyncLLM, driven against its recorded description; test_generator_contract.py has what every engine does."""

from __future__ import annotations

import gc
import importlib.metadata
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import recorded_vllm
import torch

from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import EngineError, UsageError
from storm_edge.runtime.llm import vllm, vllm_package
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.llm.vllm import VllmGenerator

GREEDY = SamplingOptions(max_tokens=6)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = recorded_vllm.recorded()
    monkeypatch.setattr(vllm, "package_names", lambda: made)
    return made


@pytest.fixture
def table(bf16_bundle: Path) -> EmbeddingTable:
    opened = Bundle.open(bf16_bundle)
    return EmbeddingTable.open(opened.path(opened.manifest.embedding))


@pytest.fixture
def generator(package: SimpleNamespace, hf_folder: Path, table: EmbeddingTable) -> VllmGenerator:
    return VllmGenerator(hf_folder, table, capacity=128)


def prompt(video: int = 1, rows: int = 17) -> SplicedPrompt:
    visual = np.random.default_rng(video).normal(0, 0.5, (rows, 128)).astype(np.float32)
    return SplicedPrompt([5, 6, 7], visual, [20, 21], video)


def params(package: SimpleNamespace) -> Any:
    """Of the last request."""
    return list(package.made[-1].requests.values())[-1]


def test_the_engine_is_loaded_for_embeddings_and_from_safetensors_alone(
    package: SimpleNamespace, hf_folder: Path, table: EmbeddingTable
) -> None:
    VllmGenerator(hf_folder, table, capacity=96, ranks=2)
    args = package.made[0].args
    assert (args.model, args.dtype, args.load_format) == (str(hf_folder), "bfloat16", "safetensors")
    assert (args.max_model_len, args.tensor_parallel_size) == (96, 2)
    assert args.enable_prompt_embeds
    assert args.skip_tokenizer_init
    assert not getattr(args, "trust_remote_code", False)


def test_every_process_starts_from_another_seed(
    package: SimpleNamespace, hf_folder: Path, table: EmbeddingTable
) -> None:
    for _ in range(2):
        VllmGenerator(hf_folder, table, capacity=96)
    first, second = (made.args.seed for made in package.made)
    assert first != second


def test_sampling_options_have_their_names_there(generator: VllmGenerator, package: SimpleNamespace) -> None:
    options = SamplingOptions(
        temperature=np.float32(1.5), top_p=0.9, top_k=np.int64(5), seed=2**64 + 7, max_tokens=12, stop="x"
    )
    generator.start(prompt(), options, (2, 1))
    made = params(package)
    assert (made.temperature, made.top_p, made.top_k, made.seed, made.max_tokens) == (1.5, 0.9, 5, 7, 12)
    assert (made.stop_token_ids, made.ignore_eos, made.detokenize) == ([1, 2], True, False)
    assert not hasattr(made, "stop")  # stop strings are looked for here, as for every engine


def test_an_answer_without_a_seed_leaves_the_seed_to_the_engine(
    generator: VllmGenerator, package: SimpleNamespace
) -> None:
    generator.start(prompt(), SamplingOptions(temperature=1.0), ())
    assert params(package).seed is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (SamplingOptions(repetition_penalty=1.2), "would count that token as repeated"),
        (SamplingOptions(temperature=2.5), "temperature 2.5: vLLM takes 0.01 to 2.0"),
        (SamplingOptions(temperature=0.001), "temperature 0.001: vLLM takes 0.01 to 2.0"),
    ],
)
def test_options_that_would_mean_something_else_are_refused(
    generator: VllmGenerator, package: SimpleNamespace, options: SamplingOptions, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        generator.start(prompt(), options, ())
    assert package.made[0].requests == {}


def test_streams_go_on_beside_each_other(generator: VllmGenerator) -> None:
    expected = [list(generator.start(prompt(video), GREEDY, ())) for video in (1, 2)]
    streams = [generator.start(prompt(video), GREEDY, ()) for video in (1, 2)]
    both = list(zip(*streams, strict=True))
    assert [list(x) for x in zip(*both, strict=True)] == expected


def test_a_stream_that_nobody_holds_is_cancelled_and_one_that_was_read_is_not(
    generator: VllmGenerator, package: SimpleNamespace
) -> None:
    list(generator.start(prompt(1), GREEDY, ()))
    stream = generator.start(prompt(2), GREEDY, ())
    next(stream)
    del stream
    gc.collect()
    list(generator.start(prompt(3), GREEDY, ()))
    assert package.made[0].aborted == [list(package.made[0].requests)[1]]


def test_forced_tokens_are_computed_without_the_cache(generator: VllmGenerator, package: SimpleNamespace) -> None:
    list(generator.start(prompt(), GREEDY, ()))
    logits = generator.forced(prompt(), [1, 2, 3])
    made = params(package)
    assert (made.trace_decode_token_ids, made.max_tokens, made.skip_reading_prefix_cache) == ([1, 2, 3], 3, True)
    assert np.isfinite(logits).all()
    assert len(logits) == 3


def test_forced_tokens_that_do_not_fit_are_refused(generator: VllmGenerator, package: SimpleNamespace) -> None:
    with pytest.raises(UsageError, match="the prompt has 125 tokens, 120 of them visual, the language model holds 128"):
        generator.forced(prompt(rows=120), [1, 2, 3, 4])
    assert package.made[0].computed == 0


def test_logits_that_are_missing_are_an_engine_error(
    generator: VllmGenerator, package: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(scores: list[np.ndarray], answer: list[int]) -> SimpleNamespace:
        made = flat(scores, answer)
        made.logprobs[made.token_ids.index(9)] = float("nan")
        return made

    flat = recorded_vllm._flat
    monkeypatch.setattr(recorded_vllm, "_flat", without)
    with pytest.raises(EngineError, match="vLLM gave no logits for some tokens"):
        generator.forced(prompt(), [1, 2])


def test_a_request_that_fails_is_an_engine_error(generator: VllmGenerator, package: SimpleNamespace) -> None:
    stream = generator.start(prompt(), GREEDY, ())
    package.made[0].fails = "CUDA error:\nout of memory"
    next(stream)  # came with the first
    with pytest.raises(EngineError, match="vLLM: CUDA error: out of memory"):
        next(stream)


def test_an_engine_that_cannot_be_loaded_is_an_engine_error(
    package: SimpleNamespace, hf_folder: Path, table: EmbeddingTable
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("Engine core initialization failed.\nSee root cause above.")

    package.AsyncLLM.from_engine_args = fail
    with pytest.raises(EngineError, match=r"vLLM cannot load .* \(Engine core initialization failed. See root cause"):
        VllmGenerator(hf_folder, table, capacity=96)


def test_the_engine_ends_with_the_last_that_holds_it(
    package: SimpleNamespace, hf_folder: Path, table: EmbeddingTable
) -> None:
    generator = VllmGenerator(hf_folder, table, capacity=96)
    stream = generator.worker().start(prompt(), GREEDY, ())
    del generator
    gc.collect()
    assert not package.made[0].stopped
    assert len(list(stream)) == 6
    del stream
    gc.collect()
    assert package.made[0].stopped


def test_a_folder_without_a_model_is_refused(package: SimpleNamespace, table: EmbeddingTable, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="holds no model for vLLM"):
        VllmGenerator(tmp_path, table, capacity=96)
    assert package.made == []


def test_the_description_refuses_what_the_package_refuses() -> None:
    api = recorded_vllm.recorded()
    for wrong in (
        lambda: api.AsyncEngineArgs(model=Path("x")),
        lambda: api.AsyncEngineArgs(model="x", dtype="bf16"),
        lambda: api.AsyncEngineArgs(model="x", enable_embeds=True),
        lambda: api.SamplingParams(top_k=5.0),
        lambda: api.SamplingParams(seed=2**63),
        lambda: api.SamplingParams(stop_token_ids=(1, 2)),
        lambda: api.embeds_input(np.zeros((1, 2))),
        lambda: api.embeds_input(torch.zeros(1, 2), None, "salt"),  # by name only
        lambda: api.AsyncLLM.from_engine_args(api.SamplingParams()),
    ):
        with pytest.raises(TypeError):
            wrong()
    for wrong in (
        lambda: api.SamplingParams(temperature=2.5),
        lambda: api.SamplingParams(temperature=0.001),
        lambda: api.SamplingParams(stop="x", detokenize=False),
        lambda: api.SamplingParams(trace_decode_token_ids=[1], prompt_logprobs=1),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            wrong()


@pytest.mark.parametrize("version", ["0.34.1", "0.11.0"])
def test_other_lines_of_the_package_are_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    with pytest.raises(
        EngineError, match=f"vllm {version} is installed, .* from 0.33 on and before 0.34: pip install vllm==0.33.0"
    ):
        vllm_package.package_names()


def test_without_the_package_the_message_says_what_to_install() -> None:
    with pytest.raises(EngineError, match=r"vllm is not installed: pip install vllm==0.33.0"):
        vllm_package.package_names()


def test_a_package_that_cannot_be_loaded_is_an_engine_error_and_told_to_keep_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm_package, "require_package", lambda _: "0.33.0")
    monkeypatch.setattr(vllm_package, "_NAMES", {"AsyncLLM": "storm_edge.runtime.no_such_module"})
    for name in vllm_package._ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    with pytest.raises(EngineError, match=r"vllm cannot be loaded \(No module named .*no_such_module"):
        vllm_package.package_names()
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"  # TensorRT has used CUDA in this process
    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"  # as the user said
