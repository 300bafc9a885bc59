from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from storm_edge.calibration.calibrate import calibrate
from storm_edge.calibration.observe import Observer
from storm_edge.calibration.smoothquant import SmoothQuant, find_smoothquant, smoothquant_scales
from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.bundle.calibration import find_calibration
from storm_edge.runtime.bundle.engine import CheckResult
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.machine.targets import target

Copy = Callable[[Path], Path]
WithOutliers = Callable[[Stage], Bundle]


def clips(number: int = 8) -> Iterator[NDArray[np.uint8]]:
    for i in range(number):
        yield np.random.default_rng(i).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)


def worst(results: list[CheckResult], stage: str, metric: str = "cosine") -> float:
    return min(r.value for r in results if (r.stage, r.metric) == (stage, metric))


def test_scales_even_out_activations_and_weights_and_change_no_common_factor() -> None:
    activations, weights = np.array([100, 1, 0, 4], np.float32), np.array([1, 1, 1, 0], np.float32)
    scales = smoothquant_scales(activations, weights, 0.5)
    np.testing.assert_allclose(scales, [10**0.5, 10**-0.5, 1, 1], rtol=1e-6)  # those in between are left alone
    assert np.array_equal(smoothquant_scales(np.zeros(3, np.float32), np.ones(3, np.float32), 0.5), np.ones(3))
    assert smoothquant_scales(activations, weights, 1.0)[0] == pytest.approx(10)
    assert smoothquant_scales(activations, weights, 0.0)[:2] == pytest.approx([1, 1])


def test_outliers_that_ruin_int8_are_smoothed_away_in_the_engines(with_outliers: WithOutliers) -> None:
    opened = with_outliers("vision")
    calibrate(opened, clips, "plain", samples=8, budget=math.inf, threads=1)
    folder = calibrate(opened, clips, "smooth", samples=8, budget=math.inf, threads=1, smoothquant=SmoothQuant())
    report = json.loads((folder / "report.json").read_text())["smoothing"]
    assert report["used"]
    assert report["error_with"] < 0.5 * report["error_without"]
    touched = {norm["output"]: norm for norm in report["norms"] if norm["alpha"] is not None}
    assert {"layer_norm_1", "layer_norm_2"} <= set(touched)
    assert all(norm["error_with"] <= 0.95 * norm["error_without"] for norm in touched.values())
    assert set(find_calibration(opened, "smooth").scales["vision"]) <= set(touched)
    assert find_calibration(opened, "plain").scales == {"vision": {}, "temporal": {}, "decoder": {}}
    cpu, prepared = {}, {}
    for name in ("plain", "smooth"):
        record = build(opened, target("cpu"), BuildOptions("int8", calibration=name, allow_mismatch=True, threads=1))
        cpu[name] = 1 - worst(record.verification, "vision")
        options = BuildOptions(
            precision="int8", calibration=name, prepare_only=True, stages=("vision",), allow_mismatch=True
        )
        prepared[name] = 1 - worst(build(opened, target("orin"), options).verification, "vision")
    assert cpu["smooth"] < 0.5 * cpu["plain"]
    assert prepared["smooth"] < 0.5 * prepared["plain"]


def test_an_alpha_that_helps_nowhere_smooths_nothing(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    # With alpha 0 the activations take over how uneven the weights are: random ones are even.
    found = find_smoothquant(opened, list(clips(2)), "minmax", 0.0, 1, lambda _: None)
    assert found.scales == {}
    assert found.error_with == found.error_without
    assert all(norm.alpha is None for norm in found.norms)
    assert len(found.norms) == 10


def test_a_stopped_run_is_not_taken_up_by_one_that_smooths_otherwise(
    with_outliers: WithOutliers, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = with_outliers("vision")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("storm_edge.calibration.calibrate.Observer.ranges", stop)
    with pytest.raises(KeyboardInterrupt):
        calibrate(opened, lambda: clips(17), "a", samples=17, budget=math.inf, threads=1)
    monkeypatch.undo()
    added: list[int] = []
    add = Observer.add

    def count(self: Observer, frames: NDArray[np.uint8]) -> None:
        added.append(1)
        add(self, frames)

    monkeypatch.setattr(Observer, "add", count)
    calibrate(opened, lambda: clips(17), "a", samples=17, budget=math.inf, threads=1, smoothquant=SmoothQuant(0.5))
    assert len(added) == 8 + 8 + 17  # without, with, and all of it


def test_damaged_scales_are_refused(with_outliers: WithOutliers) -> None:
    opened = with_outliers("vision")
    folder = calibrate(opened, clips, "a", samples=8, budget=math.inf, threads=1, smoothquant=SmoothQuant(0.5))
    path = folder / "ranges.safetensors"
    with safe_open(path, framework="numpy") as f:
        about = f.metadata()
    arrays = load_file(path)
    key = next(name for name in arrays if name.startswith("smooth/vision/"))
    for damaged, words in (
        (-arrays[key], "are no positive numbers"),
        (arrays[key][None], "are no positive numbers"),
        (arrays[key][:5], r"128 channels, its scales are \[5\]"),
    ):
        save_file({**arrays, key: np.ascontiguousarray(damaged)}, path, about)
        with pytest.raises(BuildError, match=words):
            build(opened, target("cpu"), BuildOptions("int8", threads=1))
    save_file({**arrays, "smooth/vision/nothing": arrays[key]}, path, about)
    with pytest.raises(BuildError, match="nothing is nothing that a norm or gate makes"):
        build(opened, target("cpu"), BuildOptions("int8", threads=1))
