from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from storm_edge.calibration.acceptance import Acceptance, fit
from storm_edge.calibration.decoder import load_llm
from storm_edge.calibration.switched import Key, SwitchedEncoders
from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.bundle.calibration import find_calibration
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.machine.targets import target

Copy = Callable[[Path], Path]


class Made:
    """An acceptance of which the cost of every layer is known; costs add up."""

    def __init__(self, costs: list[float], always: float = 0.0) -> None:
        self.costs = {("vision", str(i)): cost for i, cost in enumerate(costs)}
        self.always = always
        self.measured = 0

    def used(self, keys: Collection[Key], enough: float) -> float:
        self.measured += 1
        return self.always + sum(self.costs[key] for key in keys)  # type: ignore[index]


def chosen(made: Made, budget: float = 1.0) -> list[int]:
    found = fit(list(made.costs), made, budget, lambda _: None)  # type: ignore[arg-type]
    return sorted(int(node) for _, node in found)


def test_one_measurement_is_enough_where_everything_fits() -> None:
    made = Made([0.01] * 64)
    assert chosen(made) == list(range(64))
    assert made.measured == 1


def test_only_the_layers_that_do_not_fit_are_left_out_and_few_measurements_find_them() -> None:
    made = Made([0.0] * 40 + [2.0] + [0.0] * 100 + [3.0] + [0.0] * 22)
    assert chosen(made) == sorted(set(range(164)) - {40, 141})
    assert made.measured <= 2 * 2 * 8 + 2


def test_a_sum_of_small_costs_is_kept_within_the_budget() -> None:
    made = Made([0.3] * 8)
    assert len(chosen(made)) == 3
    assert len(chosen(made, budget=0.5)) == 1


def test_nothing_is_tried_further_where_not_even_floating_point_is_accepted() -> None:
    made = Made([0.1] * 64, always=1.5)
    assert chosen(made) == []
    assert made.measured == 2


def test_what_is_accepted_is_what_verification_measures_of_the_engine(calibrated: Path, copy_of: Copy) -> None:
    bundle = Bundle.open(copy_of(calibrated))
    calibration = find_calibration(bundle, None)
    record = build(bundle, target("cpu"), BuildOptions("int8", allow_mismatch=True))
    used = max(
        (1 - r.value) / (1 - r.limit) if r.metric == "cosine" else r.value / r.limit
        for r in record.verification
        if r.stage in ("vision", "temporal", "chain")
    )
    with SwitchedEncoders(bundle, calibration.ranges, "uint8", threads=1) as encoders:
        keys = [key for key in encoders.keys if key[1] in calibration.chosen(key[0], "uint8")]
        acceptance = Acceptance(bundle, encoders, "uint8", None)
        assert acceptance.used(keys) == pytest.approx(used, rel=0.2)
        assert acceptance.used([]) < 1e-3
        # Logits may use up half, and are measured with the bundle's own language model.
        assert Acceptance(bundle, encoders, "uint8", load_llm(bundle, 1)).used([]) < 1e-3


def test_a_layer_is_quantized_in_the_schemes_that_layers_json_names(calibrated: Path, copy_of: Copy) -> None:
    bundle = Bundle.open(copy_of(calibrated))
    path = bundle.root / "calibration" / "clips" / "layers.json"
    layers = json.loads(path.read_text())
    for of_stage in layers["stages"].values():
        for layer in of_stage.values():
            layer["quantize"] = layer["module"] == "projector.linear" and ["int8", "fp8"]
    path.write_text(json.dumps(layers))
    found = find_calibration(bundle, None)
    assert [len(found.chosen("vision", scheme)) for scheme in ("uint8", "int8", "fp8")] == [0, 1, 1]
    with pytest.raises(BuildError, match=r"leaves every layer .* for uint8.*: build with --precision fp32"):
        build(bundle, target("cpu"), BuildOptions("int8"))
    options = BuildOptions(precision="int8", simulate=True)
    assert build(bundle, target("orin"), options).verified
