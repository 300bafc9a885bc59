from __future__ import annotations

import pytest

from storm_edge.runtime.errors import TargetError, UsageError
from storm_edge.runtime.machine import targets
from storm_edge.runtime.machine.matrix import support_matrix
from storm_edge.runtime.machine.precisions import (
    check_llm_precision,
    check_precision,
    require_capable,
    require_llm_capable,
)
from storm_edge.runtime.machine.targets import PRECISIONS, TARGETS, target


def refusal(call, *arguments) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises((TargetError, UsageError)) as caught:
        call(*arguments)
    exists = "there is no" not in str(caught.value)
    assert isinstance(caught.value, TargetError if exists else UsageError)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_an_unknown_target_is_refused_with_those_that_exist() -> None:
    assert "choose one of cpu, cuda, rtx, a100" in refusal(target, "toaster")


def test_fp8_on_orin_is_refused_with_the_reason_and_the_nearest_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "BUILDS", {})
    assert refusal(require_capable, target("orin"), "fp8") == (
        "Jetson Orin (SM 87) has no FP8 units, they start at SM 89: use --precision int8 or fp16"
        " (which this version does not build yet)."
    )


@pytest.mark.parametrize(
    ("name", "precision", "words"),
    [
        ("a100", "fp8", "A100 (SM 80) has no FP8 units"),
        ("cpu", "fp8", "no CPU has FP8 units: use --precision "),
        ("cpu", "fp16", "multiplies no fp16 matrices on a CPU: use --precision fp32"),
        ("h100", "fp32", "fp32 is for the CPU"),
        ("orin", "bf16", "has no bf16 form of the vision tower"),
        ("thor", "int4", "--llm-precision"),
        ("l4", "fp7", "there is no precision 'fp7'"),
    ],
)
def test_what_the_hardware_cannot_do_is_refused_with_its_reason(name: str, precision: str, words: str) -> None:
    assert words in refusal(check_precision, target(name), precision)


def test_fp8_on_an_rtx_card_depends_on_its_compute_capability() -> None:
    require_capable(target("rtx"), "fp8", 120)
    assert "(SM 86) has no FP8 units" in refusal(require_capable, target("rtx"), "fp8", 86)


def test_what_this_version_does_not_build_yet_is_said_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "BUILDS", {"cpu": {"fp32": "run"}, "orin": {"fp16": "written"}})
    assert check_precision(target("orin"), None) == "fp16"
    message = refusal(check_precision, target("orin"), "int8")
    assert message == "this version does not build int8 for orin yet: use --precision fp16."
    assert "a100 cannot be built by this version yet: build for cpu, orin" in refusal(
        check_precision, target("a100"), None
    )
    assert "they start at SM 89: use --precision fp16." in refusal(check_precision, target("orin"), "fp8")


def test_the_language_model_on_jetpack_6_is_sent_to_onnx_runtime() -> None:
    orin = target("orin")
    old, new, *_ = orin.releases
    message = refusal(require_llm_capable, orin, "bf16", old)
    assert "TensorRT 10.3 of JetPack 6.2" in message
    assert "--llm-precision int4, which ONNX Runtime CUDA runs" in message
    require_llm_capable(orin, "bf16", new)
    require_llm_capable(orin, "int4", old)
    assert "SM 89" in refusal(require_llm_capable, target("a100"), "fp8")


def test_the_cpu_builds_fp32_by_default_and_every_claim_has_words() -> None:
    assert check_precision(target("cpu"), None) == check_llm_precision(target("cpu"), None) == "fp32"
    for table in (targets.BUILDS, targets.LLM_BUILDS):
        for name, cells in table.items():
            assert all(words.split()[0] in ("run", "compiled", "written") for words in cells.values()), name


def test_every_build_claimed_is_one_the_hardware_can_do() -> None:
    for t in TARGETS.values():
        assert set(t.status) <= set(t.precisions) <= set(PRECISIONS)
        assert set(t.llm_status) <= set(t.llm_precisions) <= set(PRECISIONS)
        for precision in t.precisions:
            require_capable(t, precision)


@pytest.mark.parametrize("t", TARGETS.values(), ids=TARGETS)
def test_published_figures_cover_every_precision_of_a_device(t: targets.Target) -> None:
    sizes = [d.memory for d in t.devices]
    assert sizes == sorted(sizes)
    for device in t.devices:
        assert {*t.precisions, *t.llm_precisions} - {"int8"} <= set(device.rates)
        assert device.rates["int8"] > device.rates["fp16"]
    assert t.devices or t.name in ("cpu", "cuda")


def test_the_matrix_tells_cannot_from_not_yet_and_has_no_other_words() -> None:
    rows = {tuple(r.split(" | ")[:4]): r.strip("| ").split(" | ")[4:] for r in support_matrix({}).splitlines()[2:]}
    assert rows["| orin", "Jetson Orin", "vision, temporal", "TensorRT"][4] == "-"  # fp8
    assert rows["| a100", "A100", "language model", "TensorRT-LLM"] == ["-", *["written"] * 3, "-", "written"]
    assert len(rows) == sum(2 + len(t.llm_choices) for t in TARGETS.values())
    assert all(
        cell == "-" or cell == "not yet" or cell.split()[0] in ("run", "compiled", "written")
        for cells in rows.values()
        for cell in cells
    )
