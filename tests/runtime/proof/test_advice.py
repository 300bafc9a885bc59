from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from storm_edge.runtime.bundle.engine import CheckResult, read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import ParityError
from storm_edge.runtime.proof.verify import require

Copy = Callable[[Path], Path]


def advice(bundle: Bundle, stage: str, **made_of: object) -> str:
    record = read_engine(bundle, "cpu-fp32").model_copy(update=made_of)
    bad = CheckResult(stage=stage, metric="cosine", value=0.5, limit=0.998, passed=False, clip="clip0")
    with pytest.raises(ParityError) as failed:
        require([bad], bundle, record)
    return str(failed.value).partition("do not use it; ")[2]


def with_budget(bundle: Bundle, budget: str | None) -> None:
    path = bundle.root / "calibration" / "clips" / "ranges.safetensors"
    with safe_open(path, framework="numpy") as f:
        about = f.metadata()["calibration"]
        arrays = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118 # no mapping
    about = re.sub(r'"budget": "[^"]*", ', "", about)
    about = about if budget is None else about.replace("{", f'{{"budget": "{budget}", ', 1)
    save_file(arrays, path, {"calibration": about})


@pytest.mark.parametrize(("precision", "target"), [("int8", "cpu"), ("int8", "orin"), ("fp8", "h100")])
@pytest.mark.parametrize("stage", ["vision", "temporal", "chain", "chain decoder"])
def test_every_advice_about_the_encoders_differs_from_the_last_and_the_last_needs_no_calibration(
    precision: str, target: str, stage: str, calibrated: Path, copy_of: Copy
) -> None:
    bundle = Bundle.open(copy_of(calibrated))
    given: list[str] = []
    budget: str | None = None
    while budget != "done":
        with_budget(bundle, budget)
        given.append(advice(bundle, stage, precision=precision, target=target, calibration="clips abc"))
        found = re.search(r"`storm calibrate .* --name clips .*--budget ([\d.]+)`, and build it again", given[-1])
        budget = found[1] if found else "done"
    assert len(set(given)) == len(given) == 5
    assert given[0].endswith("--data DIR --name clips --budget 0.8`, and build it again.")
    instead = "fp32" if target == "cpu" else "fp16"
    assert given[-1] == f"no budget of a calibration helps: build with --precision {instead}."


def test_the_command_that_is_advised_makes_what_the_calibration_held(calibrated: Path, copy_of: Copy) -> None:
    bundle = Bundle.open(copy_of(calibrated))
    path = bundle.root / "calibration" / "clips" / "ranges.safetensors"
    path.write_bytes(path.read_bytes().replace(b'\\"method\\": \\"minmax\\"', b'\\"method\\": \\"mse\\"   '))
    assert " --name clips --method mse --budget" in advice(
        bundle, "temporal", precision="int8", calibration="clips abc"
    )
    assert f"{bundle.root} --data DIR --budget 0.8`" in advice(
        bundle, "temporal", precision="int8", calibration="gone a"
    )


@pytest.mark.parametrize(
    ("llm_precision", "target", "words"),
    [
        ("fp8", "h100", "take --llm-precision bf16"),
        ("int4", "cpu", "--data DIR --awq`, and build it again"),
        ("fp32", "cpu", "--engine cpu-fp32 --stage decoder` names the layer"),
    ],
)
def test_the_language_models_failure_names_what_helps_it(
    llm_precision: str, target: str, words: str, bundle: Path
) -> None:
    said = advice(Bundle.open(bundle), "decoder", precision="fp32", llm_precision=llm_precision, target=target)
    assert words in said


def test_a_language_model_that_awq_has_scaled_is_not_told_to_be_scaled(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scaled:
        scales: dict[str, object] = {"decoder": {"x": 1}}  # noqa: RUF012 # never changed

    monkeypatch.setattr("storm_edge.runtime.proof.advice._calibration_of", lambda *_: Scaled())
    opened = Bundle.open(bundle)
    for target, precision in (("cpu", "int8"), ("h100", "bf16")):
        said = advice(opened, "decoder", llm_precision="int4", target=target)
        assert said == f"take --llm-precision {precision}."
