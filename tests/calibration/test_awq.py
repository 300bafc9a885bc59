from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from storm_edge.calibration.awq import Awq, awq_scales
from storm_edge.calibration.calibrate import calibrate
from storm_edge.calibration.decoder import decoder_of, fp32_decoder
from storm_edge.calibration.graphs import fp32_graph
from storm_edge.calibration.language import describe_all
from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.passes.smoothquant import smoothquant, smoothquant_groups
from storm_edge.runtime.bundle.calibration import find_awq
from storm_edge.runtime.bundle.engine import CheckResult
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.machine.targets import target

WithOutliers = Callable[[Stage], Bundle]


def clips(number: int = 8) -> Iterator[NDArray[np.uint8]]:
    for i in range(number):
        yield np.random.default_rng(i).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)


def off(results: list[CheckResult]) -> float:
    return 1 - min(r.value for r in results if (r.stage, r.metric) == ("decoder", "cosine"))


def test_scales_grow_with_the_activations_and_silent_channels_stay() -> None:
    scales = awq_scales(np.array([4, 1, 0], np.float32), 0.5)
    np.testing.assert_allclose(scales, [2**0.5, 0.5**0.5, 1], rtol=1e-6)
    assert np.array_equal(awq_scales(np.zeros(2, np.float32), 1.0), np.ones(2))


def test_a_scaled_decoder_is_the_same_function(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    model, readers = fp32_graph(opened, "decoder", {})
    rng = np.random.default_rng(0)
    scales = {
        g.output: np.exp(rng.normal(0, 1, g.layers[0].shape[0])).astype(np.float32) for g in smoothquant_groups(model)
    }
    smoothquant(model, readers, scales)
    rows = rng.normal(size=(7, 128)).astype(np.float32) * 0.05
    prompt = SplicedPrompt([], rows, [])
    ours, theirs = (llm.forced(prompt, [0]) for llm in (decoder_of(opened, model, readers, 1), fp32_decoder(opened, 1)))
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_weights_that_meet_large_activations_are_saved_in_the_engines(with_outliers: WithOutliers) -> None:
    opened = with_outliers("decoder")
    plain = build(opened, target("cpu"), BuildOptions("fp32", "int4", allow_mismatch=True, threads=1))
    assert plain.calibration == ""
    asked = describe_all(clips)
    folder = calibrate(
        opened, clips, "awq", samples=8, budget=math.inf, threads=1, awq=Awq(asked, prompts=2, block=128)
    )
    report = json.loads((folder / "report.json").read_text())["scaling"]
    assert (report["used"], report["block"], len(report["groups"])) == (True, 128, 4 * 3)
    assert report["divergence_with"] < report["divergence_without"]
    hurt = {group["output"]: group for group in report["groups"]}["model.layers.0.post_attention_layernorm"]
    assert hurt["error_with"] < 0.6 * hurt["error_without"]
    scaled = build(opened, target("cpu"), BuildOptions("fp32", "int4", allow_mismatch=True, threads=1))
    assert scaled.calibration.startswith("awq ")
    assert scaled.graphs["decoder"] != plain.graphs["decoder"]
    assert off(scaled.verification) < 0.9 * off(plain.verification)
    # TensorRT's int4 takes the same scales; int8 and fp32 take none.
    options = BuildOptions(precision="fp16", llm_precision="int4", simulate=True, threads=1, allow_mismatch=True)
    simulated = build(opened, target("h100"), options)
    assert simulated.calibration.startswith("awq ")
    assert build(opened, target("cpu"), BuildOptions("fp32", "int8", allow_mismatch=True, threads=1)).calibration == ""


def test_where_several_calibrations_scale_one_has_to_be_named(with_outliers: WithOutliers) -> None:
    opened = with_outliers("decoder")
    calibrate(opened, clips, "a", samples=8, budget=math.inf, threads=1, awq=Awq(describe_all(clips), prompts=1))
    (opened.root / "calibration" / "b").mkdir()
    for file in ("ranges.safetensors", "layers.json"):
        source = opened.root / "calibration" / "a" / file
        (opened.root / "calibration" / "b" / file).write_bytes(source.read_bytes())
    with pytest.raises(BuildError, match="several calibrations with scales for int4: choose one, --calibration a or b"):
        build(opened, target("cpu"), BuildOptions("fp32", "int4", threads=1))
    found = find_awq(opened, "b")
    assert found is not None
    assert found.name == "b"
    assert find_awq(opened, "other") is None


def test_without_questions_there_is_nothing_to_scale_by(bundle: Path, copy_of: Callable[[Path], Path]) -> None:
    opened = Bundle.open(copy_of(bundle))
    with pytest.raises(BuildError, match="the data gave no questions"):
        calibrate(opened, clips, "a", samples=8, budget=math.inf, threads=1, awq=Awq(lambda: []))
