from pathlib import Path

import numpy as np
import pytest

from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.trust import choose_engine
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.proof.divergence import logit_divergence
from storm_edge.runtime.proof.evaluate import Item, Result, evaluate, is_right, paired, scores, wilson
from storm_edge.runtime.proof.result_log import ResultLog


def _items(number: int) -> list[Item]:
    clips = np.random.default_rng(0).integers(0, 256, (number, 4, 64, 64, 3), dtype=np.uint8)
    return [
        Item(f"q{i}", clips[i], "Which way?", "left", "time/direction" if i % 2 else "control/x") for i in range(number)
    ]


def test_the_interval_is_wilsons() -> None:
    low, high = wilson(96, 100)
    assert low == pytest.approx(0.9016, abs=1e-4)  # statsmodels' proportion_confint(96, 100, method="wilson")
    assert high == pytest.approx(0.9843, abs=1e-4)
    assert wilson(5, 5)[1] == 1.0
    assert wilson(0, 5)[0] == 0.0


@pytest.mark.parametrize(
    ("predicted", "right"),
    [("Left", True), ("left.", True), ("  to the left", False), ("", False), ("right", False)],
)
def test_a_free_answer_is_right_word_for_word(predicted: str, right: bool) -> None:
    assert is_right(Item("1", "a.mp4", "Which way?", "left", "t"), predicted) is right


@pytest.mark.parametrize(
    ("predicted", "right"),
    [("B", True), ("(B)", True), ("b. a dog", True), ("Answer: B", True), ("a dog", True), ("A", False), ("Z", False)],
)
def test_a_choice_is_right_by_letter_or_text(predicted: str, right: bool) -> None:
    item = Item("1", "a.mp4", "What runs?", "a dog", "t", ("a cat", "a dog", "an axe"))
    assert is_right(item, predicted) is right
    assert item.prompt.splitlines()[1:4] == ["A. a cat", "B. a dog", "C. an axe"]


def test_groups_of_types_are_counted_too() -> None:
    results = [
        Result(str(i), kind, "x", "x", i < 3) for i, kind in enumerate(["time/a", "time/b", "time/b", "control/c"])
    ]
    overall, kinds = scores(results)
    assert (overall.right, overall.asked) == (3, 4)
    assert {kind: (s.right, s.asked) for kind, s in kinds.items()} == {
        "control": (0, 1),
        "control/c": (0, 1),
        "time": (3, 3),
        "time/a": (1, 1),
        "time/b": (2, 2),
    }


def test_a_stopped_evaluation_goes_on_and_ends_with_the_same_results(bundle: Path, tmp_path: Path) -> None:
    pipeline = load(bundle)
    items, about = _items(4), {"data": "test"}
    whole = evaluate(pipeline, items)
    log = tmp_path / "results.jsonl"
    evaluate(pipeline, items[:2], log=ResultLog(log, about))
    with log.open("a") as file:
        file.write('{"id": "q2", "type": "cut o')
    asked: list[Result] = []
    again = evaluate(pipeline, items, log=ResultLog(log, about), progress=asked.append)
    assert again == whole
    assert [r.id for r in asked] == ["q2", "q3"]
    assert len(log.read_text().splitlines()) == 5


def test_results_of_something_else_are_not_mixed_in(tmp_path: Path) -> None:
    ResultLog(tmp_path / "log.jsonl", {"engine": "cpu-fp32"})
    with pytest.raises(UsageError, match="engine 'cpu-fp32' instead of 'cpu-int8'"):
        ResultLog(tmp_path / "log.jsonl", {"engine": "cpu-int8"})


def test_an_fp32_engine_does_not_diverge_from_pytorch(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    divergence = logit_divergence(opened, Stages.load(opened, choose_engine(opened, None, ("cpu",))))
    assert divergence.kl < 1e-8
    assert divergence.agreeing == 1.0
    assert divergence.tokens > 10


def test_a_paired_difference_counts_only_the_questions_that_tell_the_two_apart() -> None:
    first, second = [True] * 90 + [False] * 10, [True] * 88 + [False] * 2 + [True] * 10
    difference, low, high = paired(first, second)
    assert difference == pytest.approx(0.08)
    gain, loss = 11 / 102, 3 / 102  # Bonett and Price's adjusted shares
    half = 1.959964 * ((gain + loss - (gain - loss) ** 2) / 102) ** 0.5
    assert (low, high) == pytest.approx((gain - loss - half, gain - loss + half))
    assert paired(first, first)[1] < 0 < paired(first, first)[2]
