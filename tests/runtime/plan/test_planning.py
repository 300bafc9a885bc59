from __future__ import annotations

from dataclasses import replace

import pytest

from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.sizes import whole_frames
from storm_edge.runtime.errors import TargetError, UsageError
from storm_edge.runtime.machine import targets
from storm_edge.runtime.machine.targets import TARGETS, target
from storm_edge.runtime.plan.advice import advise
from storm_edge.runtime.plan.planning import GIB, PlanOptions, device_of, make_plan, most_frames

SEVEN = preset("storm-7b")
ORIN = target("orin")
HALF = PlanOptions(128, "fp16", "bf16")
SMALL = PlanOptions(128, "int8", "int4")


def test_storm_7b_in_16_bits_fits_agx_orin_and_not_an_orin_nano() -> None:
    plan = make_plan(SEVEN, ORIN, device_of(ORIN, 64), HALF)
    assert plan.fits
    assert (plan.scan_tokens, plan.visual_tokens, plan.cache_length) == (32768, 8192, 9216)
    assert 15 * GIB < plan.peak < 25 * GIB
    assert plan.first_token is not None
    assert 5 < plan.first_token < 60
    assert not make_plan(SEVEN, ORIN, device_of(ORIN, 8), HALF).fits


def test_the_peak_counts_the_block_that_engines_share_once() -> None:
    plan = make_plan(SEVEN, ORIN, None, HALF)
    kept = sum(s.weights + s.outputs + s.kv_cache for s in plan.stages.values())
    assert plan.peak == kept + max(s.activations + s.workspace for s in plan.stages.values())
    assert plan.stages["decode"].weights == 0  # prefill's engine
    assert plan.usable is None
    assert plan.fits


def test_sessions_of_onnxruntime_and_runners_with_a_cache_of_their_own_share_nothing() -> None:
    cpu = make_plan(SEVEN, target("cpu"), None, PlanOptions(128, "fp32", "fp32"))
    everything = ("weights", "activations", "outputs", "kv_cache", "workspace")
    assert cpu.peak == sum(getattr(s, k) for s in cpu.stages.values() for k in everything)
    h100 = target("h100")
    own, other = (make_plan(SEVEN, h100, None, replace(HALF, llm=llm)) for llm in ("", "tensorrt-llm"))
    prefill = other.stages["prefill"]
    assert (own.sharing, other.sharing) == (("vision", "temporal", "prefill"), ("vision", "temporal"))
    encoders = [other.stages[name] for name in other.sharing]
    kept = sum(s.weights + s.outputs + s.kv_cache for s in other.stages.values())
    shared = max(s.activations + s.workspace for s in encoders)
    assert other.peak == pytest.approx(kept + shared + prefill.activations + prefill.workspace)


def test_the_scan_sees_every_token_and_in_chunks_only_the_tokens_grow_with_the_clip() -> None:
    at_once = whole_frames(SEVEN)
    short, long, longer = (make_plan(SEVEN, ORIN, None, replace(HALF, frames=n)) for n in (at_once, 128, 512))
    assert longer.scan_tokens == 131072
    assert longer.stages["temporal"].activations == long.stages["temporal"].activations
    assert short.stages["temporal"].activations > long.stages["temporal"].activations
    assert longer.stages["vision"].outputs == 4 * long.stages["vision"].outputs == 131072 * 3584 * 2
    assert longer.stages["temporal"].outputs == longer.stages["vision"].outputs / 4


def test_a_long_clip_of_a_half_precision_model_waits_in_half_precision_on_a_cpu() -> None:
    def outputs(dtype: str, frames: int) -> float:
        config = SEVEN.model_copy(update={"dtype": dtype})
        return make_plan(config, target("cpu"), None, PlanOptions(frames, "fp32", "fp32")).stages["vision"].outputs

    assert outputs("float32", 512) == 2 * outputs("bfloat16", 512) == 131072 * 3584 * 4
    assert outputs("bfloat16", 8) == outputs("float32", 8)


def test_frames_are_filled_up_to_whole_pooled_groups() -> None:
    assert make_plan(SEVEN, ORIN, None, replace(HALF, frames=30)).scan_tokens == 32 * 256


def test_a_prompt_longer_than_the_models_context_does_not_fit_and_sampling_is_advised() -> None:
    a100 = target("a100")
    options = replace(HALF, frames=512)
    plan = make_plan(SEVEN, a100, device_of(a100, None), options)
    assert plan.fits_memory
    assert not plan.fits_context
    words = [a.words for a in advise(SEVEN, a100, device_of(a100, None), options)]
    assert words[0] == "--sample 2"
    assert words[-1] == "--frames 496"
    assert plan.cache_length >= plan.visual_tokens


@pytest.mark.parametrize("memory", [8, 16, 32, 64])
@pytest.mark.parametrize("options", [HALF, SMALL])
@pytest.mark.parametrize("frames", [32, 512])
def test_everything_advised_fits(memory: int, options: PlanOptions, frames: int) -> None:
    device = device_of(ORIN, memory)
    options = replace(options, frames=frames)
    plan = make_plan(SEVEN, ORIN, device, options)
    advice = advise(SEVEN, ORIN, device, options)
    assert plan.fits or advice
    assert not (plan.fits and advice)
    for a in advice:
        assert a.plan.fits
        assert a.words


def test_one_change_that_suffices_is_advised_before_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "LLM_BUILDS", {"orin": {"int4": "written"}})
    words = [a.words for a in advise(SEVEN, ORIN, device_of(ORIN, 16), HALF)]
    assert words == ["--llm-precision int4"]
    monkeypatch.setattr(targets, "LLM_BUILDS", {})
    (advice,) = advise(SEVEN, ORIN, device_of(ORIN, 16), HALF)
    assert advice.words == "--llm-precision int4 (which this version does not build yet)"


def test_fewer_frames_are_as_many_as_fit() -> None:
    device, options = device_of(ORIN, 8), replace(SMALL, frames=512)
    most = most_frames(SEVEN, ORIN, device, options)
    assert 0 < most < 256
    assert most % 4 == 0
    assert make_plan(SEVEN, ORIN, device, replace(options, frames=most)).fits
    assert not make_plan(SEVEN, ORIN, device, replace(options, frames=most + 4)).fits_memory


def test_a_model_that_fits_nowhere_on_a_device_gets_no_advice() -> None:
    large = SEVEN.model_copy(update={"llm": SEVEN.llm.model_copy(update={"num_hidden_layers": 280})})
    assert advise(large, ORIN, device_of(ORIN, 8), HALF) == []


def test_precisions_the_hardware_lacks_and_sizes_that_do_not_exist_are_refused() -> None:
    with pytest.raises(TargetError, match="SM 89"):
        make_plan(SEVEN, ORIN, None, replace(HALF, precision="fp8"))
    with pytest.raises(TargetError, match="no fp16 form of the language model"):
        make_plan(SEVEN, ORIN, None, replace(HALF, llm_precision="fp16"))
    with pytest.raises(TargetError, match="--memory 8 or 16 or 32 or 64"):
        device_of(ORIN, 12)
    with pytest.raises(UsageError, match="spatial-pool 3"):
        make_plan(SEVEN, ORIN, None, replace(HALF, spatial_pool=3))


def test_a_target_without_published_figures_has_memory_but_no_times() -> None:
    cpu = target("cpu")
    assert device_of(cpu, None) is None
    plan = make_plan(preset("storm-mini"), cpu, device_of(cpu, 16), PlanOptions(32, "fp32", "fp32"))
    assert plan.fits
    assert plan.first_token is None


@pytest.mark.parametrize("name", [n for n, t in TARGETS.items() if t.devices])
def test_every_precision_of_every_target_can_be_planned_and_smaller_ones_take_less(name: str) -> None:
    where = TARGETS[name]
    for device in where.devices:
        peaks = {}
        for precision in where.precisions:
            for llm_precision in where.llm_precisions:
                plan = make_plan(SEVEN, where, device, PlanOptions(32, precision, llm_precision))
                assert plan.first_token is not None
                peaks[precision, llm_precision] = plan.peak
        assert peaks["int8", "int4"] == min(peaks.values())
