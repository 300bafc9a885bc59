from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from storm_edge.runtime.bench import Limits, Run, Runs, clip_report, peer_report
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.plan.work import decode_work, vision_work

LIMITS = Limits({"fp32": 1e11, "fp16": 1e11, "int8": 2e11, "int4": 1e11}, 1e10, 1e9)


def engine(precision: str = "fp32", llm: str = "fp32") -> Any:
    return SimpleNamespace(precision=precision, llm_precision=llm, runners={"vision": "onnxruntime-cpu"})


def run(scale: float = 1.0, peak: int = 100, tokens: int = 4) -> Run:
    seconds = {"video decode": 0.5, "vision": 4.0, "temporal": 2.0, "prefill": 1.0}
    return Run(
        seconds={name: scale * value for name, value in seconds.items()},
        first_token=scale * 7.5,
        total=scale * 8.0,
        tokens=[scale * 0.1] * (tokens - 1),
        again=scale * 0.2,
        visual_tokens=32,
        prompt_tokens=48,
        peak_memory_bytes=peak,
    )


def test_every_stage_has_its_seconds_its_work_and_its_share_of_the_limit(config: StormConfig) -> None:
    report = clip_report(config, engine(), LIMITS, 8, Runs(9.0, [run(1), run(3, peak=200), run(2)]))
    assert json.loads(json.dumps(report)) == report
    assert (report["frames"], report["tokens"], report["visual_tokens"]) == (8, 8 * config.tokens_per_frame, 32)
    assert report["peak_memory_bytes"] == 200
    assert report["warm_up_seconds"] == 9.0
    assert report["vision"]["seconds"] == {"median": 8.0, "least": 4.0, "most": 12.0}
    flops = sum(work.flops for work in vision_work(config, 8, "fp32", 8))
    assert report["vision"]["flops_per_second"] == pytest.approx(flops / 8.0)
    for stage in ("vision", "temporal", "prefill", "decode"):
        found = report[stage]
        assert found["share_of_limit"] == pytest.approx(found["limit_seconds"] / found["seconds"]["median"])
        assert found["limit_seconds"] >= max(found["flops"] / 1e11, found["exponentials"] / 1e9)
    assert "flops" not in report["video decode"]


def test_the_limit_of_a_stage_counts_its_exponentials(config: StormConfig) -> None:
    slow = Limits(LIMITS.flops_per_second, LIMITS.bytes_per_second, LIMITS.exponentials_per_second / 2)
    fast, late = (clip_report(config, engine(), limits, 8, Runs(0, [run()])) for limits in (LIMITS, slow))
    for stage in ("vision", "temporal", "prefill", "decode"):
        more = late[stage]["limit_seconds"] - fast[stage]["limit_seconds"]
        assert more == pytest.approx(fast[stage]["exponentials"] / 1e9)
        assert more > 0


def test_decode_is_of_one_token_in_the_middle_of_the_answer(config: StormConfig) -> None:
    report = clip_report(config, engine(), LIMITS, 8, Runs(0, [run(tokens=9)]))
    work = decode_work(config, 48 + 4, "fp32")
    assert report["decode"]["flops"] == sum(part.flops for part in work)
    assert report["decode"]["seconds"]["median"] == pytest.approx(0.1)
    assert report["answer_tokens"] == 9


def test_an_answer_of_one_token_has_no_decode(config: StormConfig) -> None:
    assert "decode" not in clip_report(config, engine(), LIMITS, 8, Runs(0, [run(tokens=1)]))


def test_a_precision_without_a_measured_rate_has_no_limit(config: StormConfig) -> None:
    report = clip_report(config, engine("fp8", "fp16"), LIMITS, 8, Runs(0, [run()]))
    assert report["vision"]["limit_seconds"] is None
    assert report["vision"]["share_of_limit"] is None
    assert report["prefill"]["share_of_limit"] > 0


def test_energy_is_there_only_where_it_was_measured(config: StormConfig) -> None:
    assert "joules" not in clip_report(config, engine(), LIMITS, 8, Runs(0, [run()]))
    assert clip_report(config, engine(), LIMITS, 8, Runs(0, [run()], joules=3.5))["joules"] == 3.5


def test_a_peer_has_seconds_and_memory_of_its_own() -> None:
    report = peer_report(Runs(2.0, [run(2, peak=70)]))
    assert report["temporal"] == {"seconds": {"median": 4.0, "least": 4.0, "most": 4.0}}
    assert report["peak_memory_bytes"] == 70
