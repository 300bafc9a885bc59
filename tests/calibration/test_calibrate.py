from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from storm_edge.calibration.calibrate import calibrate
from storm_edge.calibration.observe import Observer
from storm_edge.export.graph_file import save_model
from storm_edge.runtime.bundle.calibration import CALIBRATED, SCHEMES, Range, find_calibration
from storm_edge.runtime.bundle.manifest import MANIFEST, Bundle, Manifest, describe_file
from storm_edge.runtime.bundle.records import to_json
from storm_edge.runtime.errors import BuildError, UsageError

Copy = Callable[[Path], Path]
Clips = Callable[[], Iterator[NDArray[np.uint8]]]


def clips(number: int = 8, seed: int = 0) -> Clips:
    def make() -> Iterator[NDArray[np.uint8]]:
        for i in range(number):
            yield np.random.default_rng([seed, i]).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)

    return make


def without_weights(bundle: Path, stage: str, damage: Callable[[onnx.ModelProto], None]) -> Bundle:
    """The bundle with a graph changed and written into the manifest."""
    path = bundle / "graphs" / f"{stage}.onnx"
    model = onnx.load(path)
    damage(model)
    save_model(model, path, f"{stage}.data")
    manifest = Manifest.model_validate_json((bundle / MANIFEST).read_text(encoding="utf-8"))
    changed = {f"graphs/{stage}.{end}": describe_file(path.with_suffix(f".{end}")) for end in ("onnx", "data")}
    manifest = manifest.model_copy(update={"files": manifest.files | changed})
    (bundle / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
    return Bundle.open(bundle)


def test_every_linear_layer_has_a_range_and_a_line_in_layers(calibrated: Path) -> None:
    found = find_calibration(Bundle.open(calibrated), None)
    assert found.name == "clips"
    assert [len(found.layers.stages[stage]) for stage in CALIBRATED] == [4 * 6 + 1, 6]
    modules = {layer.module for layer in found.layers.stages["vision"].values()}
    assert {"blocks.0.self_attn.q_proj", "blocks.3.mlp.fc2"} <= modules
    report = json.loads((calibrated / "calibration" / "clips" / "report.json").read_text())
    assert (report["samples"], report["method"], len(report["tensors"])) == (8, "minmax", 4 * 4 + 1 + 4)


def test_the_same_clips_give_the_same_bytes_and_a_stopped_run_goes_on(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    whole = calibrate(opened, clips(20), "whole", samples=20, budget=math.inf)
    added: list[int] = []
    add = Observer.add

    def count(self: Observer, frames: NDArray[np.uint8]) -> None:
        added.append(1)
        if len(added) == 18:
            raise KeyboardInterrupt
        add(self, frames)

    monkeypatch.setattr(Observer, "add", count)
    with pytest.raises(KeyboardInterrupt):
        calibrate(opened, clips(20), "stopped", samples=20, budget=math.inf)
    assert not (opened.root / "calibration" / "stopped").exists()
    resumed = calibrate(opened, clips(20), "stopped", samples=20, budget=math.inf)
    assert len(added) == 18 + 4
    for name in ("ranges.safetensors", "layers.json", "report.json"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    assert not [p for p in resumed.parent.iterdir() if p.name.startswith(".")]


def test_a_run_stopped_on_other_clips_is_not_taken_up(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("storm_edge.calibration.calibrate.Observer.ranges", stop)
    with pytest.raises(KeyboardInterrupt):
        calibrate(opened, clips(17, seed=1), "a", samples=17)
    monkeypatch.undo()
    calibrate(opened, clips(17), "a", samples=17, budget=math.inf)
    calibrate(opened, clips(17), "b", samples=17, budget=math.inf)
    a, b = (find_calibration(opened, name) for name in "ab")
    assert a.ranges == b.ranges


@pytest.mark.parametrize(
    ("made", "samples", "error", "words"),
    [
        (clips(4), 4, UsageError, "4 samples are too few"),
        (clips(5), 8, BuildError, "gave 5 clips instead of 8"),
        (lambda: iter(9 * [np.full((4, 64, 64, 3), 7, np.uint8)]), 9, BuildError, "only 0 frames of the data differ"),
        (lambda: iter(9 * [next(clips(1)())]), 9, BuildError, "only 4 frames of the data differ"),
    ],
)
def test_data_that_says_too_little_is_refused_and_leaves_nothing(
    made: Clips, samples: int, error: type[Exception], words: str, bundle: Path, copy_of: Copy
) -> None:
    opened = Bundle.open(copy_of(bundle))
    with pytest.raises(error, match=words):
        calibrate(opened, made, "a", samples=samples)
    assert not (opened.root / "calibration" / "a").exists()
    with pytest.raises(BuildError, match="has no calibration, which int8 and fp8 need: run `storm calibrate"):
        find_calibration(opened, None)


def test_nan_in_an_activation_is_refused_with_the_tensors_name(bundle: Path, copy_of: Copy) -> None:
    def damage(model: onnx.ModelProto) -> None:
        (tensor,) = (t for t in model.graph.initializer if t.name == "blocks.2.layer_norm1.bias")
        tensor.CopyFrom(numpy_helper.from_array(np.full(128, np.nan, np.float32), tensor.name))

    opened = without_weights(copy_of(bundle), "vision", damage)
    with pytest.raises(BuildError, match=r"layer_norm_4 of the vision graph has values that are no finite numbers"):
        calibrate(opened, clips(), "a", samples=8)


def test_an_activation_that_never_changes_is_refused(bundle: Path, copy_of: Copy) -> None:
    def damage(model: onnx.ModelProto) -> None:
        for kind in ("weight", "bias"):
            (tensor,) = (t for t in model.graph.initializer if t.name == f"blocks.2.layer_norm1.{kind}")
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(128, np.float32), tensor.name))

    opened = without_weights(copy_of(bundle), "vision", damage)
    with pytest.raises(BuildError, match=r"layer_norm_4 of the vision graph never changes"):
        calibrate(opened, clips(), "a", samples=8)


def test_ranges_of_another_graph_are_refused(calibrated: Path, copy_of: Copy) -> None:
    def damage(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "more"))

    opened = without_weights(copy_of(calibrated), "vision", damage)
    with pytest.raises(BuildError, match="observed on another vision graph"):
        find_calibration(opened, None)


def test_several_calibrations_are_told_apart_and_damaged_ones_refused(calibrated: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(calibrated))
    folder = opened.root / "calibration"
    (folder / "other").mkdir()
    for file in ("ranges.safetensors", "layers.json"):
        (folder / "other" / file).write_bytes((folder / "clips" / file).read_bytes())
    with pytest.raises(BuildError, match="several calibrations: choose one with --calibration clips or other"):
        find_calibration(opened, None)
    with pytest.raises(BuildError, match=r"no calibration 'third' \(it has: clips, other\)"):
        find_calibration(opened, "third")
    assert isinstance(find_calibration(opened, "other").ranges["vision"]["layer_norm"], Range)
    layers = folder / "other" / "layers.json"
    layers.write_text(layers.read_text().replace('"input": "layer_norm",', '"input": "nothing",', 1))
    with pytest.raises(BuildError, match="names nothing, of which no range is known"):
        find_calibration(opened, "other")
    (folder / "other" / "ranges.safetensors").write_bytes(b"nothing")
    with pytest.raises(BuildError, match="is damaged"):
        find_calibration(opened, "other")


def test_a_budget_that_allows_nothing_is_refused(bundle: Path) -> None:
    for budget in (0.0, -1.0, math.nan):
        with pytest.raises(UsageError, match="allows nothing"):
            calibrate(Bundle.open(bundle), clips(), "a", samples=8, budget=budget)


def test_every_layer_is_quantized_where_the_budget_has_no_end(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    folder = calibrate(opened, clips(), "a", samples=8, budget=math.inf)
    found = find_calibration(opened, None)
    assert [len(found.chosen("vision", scheme)) for scheme in SCHEMES] == 3 * [25]
    assert (found.budget, "quantized" in json.loads((folder / "report.json").read_text())) == (None, False)


def test_a_name_that_leads_elsewhere_is_refused(bundle: Path, copy_of: Copy) -> None:
    with pytest.raises(UsageError, match="cannot name a calibration"):
        calibrate(Bundle.open(copy_of(bundle)), clips(), "../a", samples=8)
