import numpy as np
import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from storm_edge.runtime.errors import EngineError, UsageError
from storm_edge.runtime.llm.sampling import Sampler, SamplingOptions

LOGITS = np.random.default_rng(0).normal(scale=2, size=50).astype(np.float32)


def _draws(options, count=2000, generated=()):
    sampler = Sampler(options)
    return np.array([sampler.next(LOGITS, generated) for _ in range(count)])


def test_the_default_takes_the_most_likely_token():
    assert set(_draws(SamplingOptions(), 3)) == {LOGITS.argmax()}


def test_equal_seeds_draw_equally_and_others_differ():
    first, again, other = (_draws(SamplingOptions(temperature=1, seed=seed), 50) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(("top_k", "top_p"), [(5, 1.0), (0, 0.7), (20, 0.5), (0, 1e-6), (500, 1.0)])
def test_top_k_and_top_p_leave_the_tokens_that_transformers_leaves(top_k, top_p):
    scores = torch.tensor(LOGITS)[None] / 1.5
    if top_k:
        scores = TopKLogitsWarper(min(top_k, 50))(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    expected = torch.softmax(scores, -1)[0].numpy()
    options = SamplingOptions(temperature=1.5, top_k=top_k, top_p=top_p, seed=0)
    np.testing.assert_allclose(Sampler(options)._probabilities(LOGITS.astype(np.float64)), expected, atol=1e-6)


def test_draws_follow_the_probabilities():
    options = SamplingOptions(temperature=1.0, top_k=4, seed=0)
    expected = Sampler(options)._probabilities(LOGITS.astype(np.float64))
    found = np.bincount(_draws(options, 4000), minlength=50) / 4000
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_the_repetition_penalty_is_that_of_transformers():
    generated = [int(LOGITS.argmax()), int(LOGITS.argmin()), int(LOGITS.argmax())]
    expected = RepetitionPenaltyLogitsProcessor(3.0)(torch.tensor([generated]), torch.tensor(LOGITS)[None])
    assert Sampler(SamplingOptions(repetition_penalty=3.0)).next(LOGITS, generated) == int(expected.argmax())
    assert int(expected.argmax()) != LOGITS.argmax()


def test_a_tiny_temperature_is_greedy_and_does_not_overflow():
    assert set(_draws(SamplingOptions(temperature=1e-300), 5)) == {LOGITS.argmax()}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_an_error(value):
    with pytest.raises(EngineError, match="not finite"):
        Sampler(SamplingOptions()).next(np.array([0.0, value], np.float32), [])


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": 1, "top_k": -1},
        {"temperature": 1, "top_p": 0.0},
        {"temperature": 1, "top_p": 1.1},
        {"repetition_penalty": 0.0},
        {"seed": -1},
        {"stop": ("",)},
        {"max_tokens": 0},
        {"top_k": 5},
        {"top_p": 0.5},
    ],
)
def test_options_without_meaning_are_refused(options):
    with pytest.raises(UsageError) as caught:
        SamplingOptions(**options)
    assert "\n" not in str(caught.value)


def test_one_stop_string_is_one_stop():
    assert SamplingOptions(stop="abc").stop == ("abc",)
    assert SamplingOptions(stop=["a", "b"]).stop == ("a", "b")


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": "1"},
        {"temperature": None},
        {"temperature": True},
        {"temperature": 10**400},
        {"temperature": 10**5000},
        {"temperature": 1j},
        {"temperature": 1, "top_k": 2.5},
        {"temperature": 1, "top_k": "3"},
        {"temperature": 1, "top_p": float("nan")},
        {"temperature": 1, "top_p": [0.5]},
        {"repetition_penalty": float("inf")},
        {"repetition_penalty": "1"},
        {"seed": 1.0},
        {"seed": "7"},
        {"stop": 5},
        {"stop": None},
        {"stop": (1,)},
        {"stop": ""},
        {"stop": b"abc"},
        {"stop": {"a": 1}},
        {"max_tokens": 2.0},
        {"max_tokens": None},
        {"max_tokens": "9" * 10**6},
        {"max_tokens": float("nan")},
    ],
)
def test_options_of_a_wrong_type_are_refused_in_one_short_line(options):
    with pytest.raises(UsageError, match="makes no sense") as caught:
        SamplingOptions(**options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 150


def test_numbers_of_numpy_are_numbers():
    options = SamplingOptions(temperature=np.float32(0.5), top_k=np.int64(3), seed=np.uint8(1))
    assert Sampler(options).next(LOGITS, []) in range(50)
