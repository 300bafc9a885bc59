"""What every `Generator` does, whichever engine is behind it.

ONNX Runtime computes for itself. TensorRT-LLM and vLLM are their recorded descriptions (see recorded_trtllm.py and
recorded_vllm.py), which refuse what the packages refuse and answer from the files that were written for them.
transformers, which has none of this code, is the reference: it reads the Hugging Face folder.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import recorded_trtllm
import recorded_vllm
import torch
from transformers import AutoModelForCausalLM

from storm_edge.runtime.bundle.engine import read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.llm import onnxruntime, tensorrt_llm, vllm
from storm_edge.runtime.llm.base import Generator
from storm_edge.runtime.llm.detokenize import StreamDecoder
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.generate import Generation
from storm_edge.runtime.llm.newline import Newline
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.llm.tensorrt_llm import TensorRtLlmGenerator
from storm_edge.runtime.llm.vllm import VllmGenerator
from storm_edge.runtime.sessions.device import HOST

GREEDY = SamplingOptions(max_tokens=6)
SAMPLED = SamplingOptions(temperature=2.0, top_p=0.9, top_k=50, seed=7, max_tokens=12)
BEFORE, AFTER, ROWS = [5, 6, 7, 8, 9], [20, 21, 22], 17


@dataclass
class Case:
    """A generator; `work` counts what it has computed, `block` is how many positions it reuses at once."""

    generator: Generator
    work: Callable[[], int]
    block: int


@pytest.fixture(params=["onnxruntime", "tensorrt-llm", "vllm"])
def case(request: pytest.FixtureRequest, bf16_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    bundle = Bundle.open(bf16_bundle)
    table = EmbeddingTable.open(bundle.path(bundle.manifest.embedding))
    if request.param == "onnxruntime":
        stepwise: Any = onnxruntime.open_generator(bundle, read_engine(bundle, "cpu-fp32"), HOST, 1)
        return Case(stepwise, counted(stepwise.model), 1)
    if request.param == "tensorrt-llm":
        checkpoint = request.getfixturevalue("trtllm_checkpoint")
        reader = request.getfixturevalue("reader")
        bindings = recorded_trtllm.recorded(reader.Checkpoint(checkpoint))
        monkeypatch.setattr(tensorrt_llm, "executor_bindings", lambda: bindings)
        folder = recorded_trtllm.engine_folder(tmp_path / "engine", checkpoint)
        generator = TensorRtLlmGenerator(folder, table, bundle.sha256)
        return Case(generator, lambda: bindings.made[0].computed, recorded_trtllm.BLOCK)
    package = recorded_vllm.recorded()
    monkeypatch.setattr(vllm, "package_names", lambda: package)
    made = VllmGenerator(request.getfixturevalue("hf_folder"), table, capacity=128)
    return Case(made, lambda: package.made[0].computed, recorded_vllm.BLOCK)


@pytest.fixture(scope="module")
def reference(hf_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(hf_folder, dtype=torch.float32)


def counted(model: Any) -> Callable[[], int]:
    """Counts the positions that a step-by-step decoder computes."""
    computed, run = [0], model._run

    def counting(embeds: Any, start: int) -> Any:
        computed[0] += len(embeds)
        return run(embeds, start)

    model._run = counting
    return lambda: computed[0]


def prompt(video: int = 1, after: list[int] | None = None, rows: int = ROWS, continues: bool = False) -> SplicedPrompt:
    """A prompt about one of the videos; their rows are bfloat16 numbers, which every engine holds exactly."""
    visual = np.random.default_rng(video).normal(0, 0.5, (rows, 128)).astype(ml_dtypes.bfloat16).astype(np.float32)
    return SplicedPrompt(BEFORE, visual, AFTER if after is None else after, video, continues)


def expected(reference: Any, asked: SplicedPrompt, given: list[int]) -> np.ndarray:
    """transformers' logits [len(given) + 1, vocabulary] after a prompt and after each of the tokens `given`."""
    embed = reference.get_input_embeddings()
    parts = (asked.before, [*asked.after, *given])
    with torch.no_grad():
        before, after = (embed(torch.tensor(list(ids), dtype=torch.long)) for ids in parts)
        whole = torch.cat([before, torch.from_numpy(asked.rows), after])[None]
        return reference(inputs_embeds=whole).logits[0, -len(given) - 1 :].numpy()


def greedy(reference: Any, asked: SplicedPrompt, number: int = 6) -> list[int]:
    said: list[int] = []
    while len(said) < number:
        said.append(int(expected(reference, asked, said)[-1].argmax()))
    return said


def ask(case: Case, asked: SplicedPrompt, options: SamplingOptions = GREEDY, ends: tuple[int, ...] = ()) -> list[int]:
    return list(case.generator.start(asked, options, ends))


@pytest.mark.parametrize("video", [1, 2, 3])
def test_greedy_tokens_are_the_references(case: Case, reference: Any, video: int) -> None:
    assert ask(case, prompt(video)) == greedy(reference, prompt(video))


def test_a_prompt_without_a_video_is_answered(case: Case, reference: Any) -> None:
    assert ask(case, prompt(rows=0)) == greedy(reference, prompt(rows=0))


def test_forced_logits_are_the_references_whatever_was_asked_before(case: Case, reference: Any) -> None:
    ask(case, prompt())
    ours = case.generator.forced(prompt(), [30, 31, 32])
    theirs = expected(reference, prompt(), [30, 31])
    assert (ours.shape, ours.dtype) == (theirs.shape, np.float32)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_sampling_with_a_seed_is_repeatable_and_without_one_it_is_not(case: Case) -> None:
    free = SamplingOptions(temperature=2.0, max_tokens=12)
    assert ask(case, prompt(), SAMPLED) == ask(case, prompt(), SAMPLED)
    assert ask(case, prompt(), free) != ask(case, prompt(), free)


def test_one_likeliest_token_is_the_greedy_one_at_any_temperature(case: Case, reference: Any) -> None:
    narrow = SamplingOptions(temperature=1.5, top_k=1, max_tokens=6)
    assert ask(case, prompt(), narrow) == greedy(reference, prompt())


def test_an_answer_ends_at_its_most_tokens(case: Case) -> None:
    stream = case.generator.start(prompt(), SamplingOptions(max_tokens=3), ())
    assert (len(list(stream)), stream.finish, len(stream.ids)) == (3, "length", 3)


def test_an_answer_ends_at_the_capacity(case: Case) -> None:
    room = recorded_trtllm.SEQUENCE - recorded_trtllm.INPUT
    long = [1 + i % 9 for i in range(case.generator.capacity - room - len(BEFORE) - ROWS)]
    stream = case.generator.start(prompt(after=long), SamplingOptions(max_tokens=100), ())
    assert len(list(stream)) - room in (0, 1)  # the last token need not be held to be said
    assert stream.finish == "length"


def test_an_answer_ends_before_the_token_that_ends_it(case: Case, reference: Any) -> None:
    whole = greedy(reference, prompt())
    last = next(i for i in range(1, len(whole)) if whole[i] not in whole[:i])
    stream = case.generator.start(prompt(), GREEDY, (whole[last], 3))
    assert (list(stream), stream.ids, stream.finish) == (whole[:last], whole[:last], "end")


def test_a_stop_string_across_tokens_ends_the_answer_and_the_next_is_right(case: Case, reference: Any) -> None:
    def text(token: int) -> bytes:
        return f"<{token}>".encode()

    whole = greedy(reference, prompt())
    stop = f"{whole[1]}><{str(whole[2])[0]}"  # from within one token into the next
    said = "".join(text(token).decode() for token in whole)
    generation = Generation(case.generator.start(prompt(), GREEDY, ()), StreamDecoder(text), [stop])
    assert "".join(generation) == said[: said.index(stop)]
    assert generation.finish == "stop"
    assert len(generation.ids) < len(whole)
    assert ask(case, prompt(2)) == greedy(reference, prompt(2))


def test_two_videos_with_equal_questions_never_mix(case: Case, reference: Any) -> None:
    one, two = (greedy(reference, prompt(video)) for video in (1, 2))
    assert one != two
    assert ask(case, prompt(1)) == one
    stream = case.generator.start(prompt(2), GREEDY, ())
    assert list(stream) == two
    assert stream.reused <= len(BEFORE)  # the text in front of both
    assert ask(case, prompt(1)) == one


def test_the_second_question_reuses_the_video(case: Case, reference: Any) -> None:
    first = case.generator.start(prompt(), GREEDY, ())
    assert (list(first), first.reused) == (greedy(reference, prompt()), 0)
    other = prompt(after=[40, 41])
    second = case.generator.start(other, GREEDY, ())
    assert second.reused == (len(BEFORE) + ROWS) // case.block * case.block
    assert list(second) == greedy(reference, other)


def test_a_conversation_goes_on_as_if_it_had_been_computed_at_once(case: Case, reference: Any) -> None:
    said = ask(case, prompt())
    longer = prompt(after=[*AFTER, *said, 50, 51], continues=True)
    stream = case.generator.start(longer, GREEDY, ())
    assert stream.reused >= (len(BEFORE) + ROWS) // case.block * case.block
    assert list(stream) == greedy(reference, longer)


def test_a_cancelled_answer_leaves_the_next_one_right(case: Case, reference: Any) -> None:
    stream = case.generator.start(prompt(1), GREEDY, ())
    next(stream)
    del stream
    gc.collect()
    assert ask(case, prompt(2)) == greedy(reference, prompt(2))
    assert ask(case, prompt(1)) == greedy(reference, prompt(1))


def test_a_prompt_that_is_too_long_is_refused_before_any_work_and_leaves_earlier_answers(
    case: Case, reference: Any
) -> None:
    stream = case.generator.start(prompt(), GREEDY, ())
    first, before = next(stream), case.work()
    for asked in (prompt(2, rows=case.generator.capacity), prompt(2, after=[1] * case.generator.capacity)):
        with pytest.raises(UsageError, match="shorten the question"):
            case.generator.start(asked, GREEDY, ())
    assert case.work() == before
    assert [first, *stream] == greedy(reference, prompt())


def test_a_worker_answers_as_the_first_does(case: Case, reference: Any) -> None:
    assert ask(Case(case.generator.worker(), case.work, case.block), prompt()) == greedy(reference, prompt())


def test_visual_tokens_become_rows_with_the_newline_after_every_frame(case: Case) -> None:
    frames = np.random.default_rng(0).normal(size=(1, 2, 3, 128)).astype(np.float32)
    rows = np.asarray(case.generator.visual_rows(frames, Newline(7, 3)))
    assert rows.shape == (2 * 4, 128)
    assert np.array_equal(rows.reshape(2, 4, 128)[:, :3], frames[0])
    assert np.array_equal(rows[3], rows[7])
