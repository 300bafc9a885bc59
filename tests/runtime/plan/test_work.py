from __future__ import annotations

import math

import pytest

from storm_edge.export.checkpoint.shapes import TensorShapes, language_shapes, temporal_shapes, vision_shapes
from storm_edge.runtime.config.presets import PRESETS, preset
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.plan import memory, work
from storm_edge.runtime.plan.planning import PlanOptions, make_plan


def elements(shapes: TensorShapes, *parts: str) -> int:
    return sum(math.prod(shape) for name, shape in shapes.items() if not parts or name.startswith(parts))


@pytest.mark.parametrize("name", PRESETS)
def test_weights_are_those_of_the_checkpoint(name: str) -> None:
    config = preset(name)
    temporal = temporal_shapes(config)
    projector = elements(temporal, "projector")
    assert memory.vision_weights(config, "fp32") == 4 * (elements(vision_shapes(config)) + projector)
    newline = elements(temporal, "image_newline")  # a row of the embedding table, on disk
    assert memory.temporal_weights(config, "fp32") == 4 * (elements(temporal) - projector - newline)
    llm = elements(language_shapes(config.llm))
    table = config.llm.vocab_size * config.llm.hidden_size  # on disk, but a tied head is a matrix of its own
    assert memory.llm_weights(config, "fp32") == 4 * (llm if config.llm.tie_word_embeddings else llm - table)


def test_quantized_weights_keep_the_head_and_the_scans_parameters_as_they_are() -> None:
    config = preset("storm-7b")
    head = 2 * 152064 * 3584
    body = memory.llm_weights(config, "bf16") - head
    assert memory.llm_weights(config, "int4") - head == pytest.approx(body * (0.5 + 2 / 128) / 2, rel=1e-3)
    scan = 4 * 4 * 7168 * (16 + 2)
    assert memory.temporal_weights(config, "int8") - scan > (memory.temporal_weights(config, "fp16") - scan) / 2


def test_the_work_of_storm_7b_is_that_of_its_published_sizes() -> None:
    config = preset("storm-7b")

    def tflop(items: list[work.Work]) -> float:
        return sum(w.flops for w in items) / 1e12

    # 26 blocks of 2 * (4 * 1152^2 + 2 * 1152 * 4304) + 4 * 1024 * 1152 a patch; the projector and patches add 1%.
    assert tflop(work.vision_work(config, 1, "fp16", 8)) == pytest.approx(0.936, rel=0.02)
    # 84.3 M parameters a layer, two layers, two FLOPs each but in_proj and out_proj serve both directions.
    assert tflop(work.temporal_work(config, 4, "fp16")) == pytest.approx(1024 * 2 * 2 * 84.3e6 / 1e12, rel=0.02)
    # 6.53 G parameters of the decoder's layers, and attention.
    assert tflop(work.prefill_work(config, 8192, "bf16", 2048)) == pytest.approx(8192 * 2 * 6.53e-3 + 13.5, rel=0.02)
    decode = work.decode_work(config, 8192, "bf16")
    assert sum(w.bytes for w in decode) == pytest.approx(
        memory.llm_weights(config, "bf16") + work.kv_bytes(config, 8192, "bf16"), rel=0.01
    )


def test_the_key_value_cache_of_qwen2_7b_takes_56_kib_a_position() -> None:
    assert work.kv_bytes(preset("storm-7b"), 1, "bf16") == 57344


def test_longer_clips_cost_vision_and_temporal_in_proportion_and_prefill_more() -> None:
    config = preset("storm-7b")

    def ratio(make, few: int, many: int) -> float:  # type: ignore[no-untyped-def]
        return sum(w.flops for w in make(config, many, "fp16")) / sum(w.flops for w in make(config, few, "fp16"))

    assert ratio(lambda c, n, p: work.vision_work(c, n, p, 8), 32, 512) == ratio(work.temporal_work, 32, 512) == 16
    assert ratio(lambda c, n, p: work.prefill_work(c, n, p, 2048), 2048, 32768) > 20


def test_one_directional_and_unpooled_models_are_counted_as_they_are() -> None:
    config = preset("storm-7b")
    one = config.model_copy(update={"temporal": config.temporal.model_copy(update={"bidirectional": False})})
    assert memory.temporal_weights(one, "fp16") < memory.temporal_weights(config, "fp16")
    assert memory.temporal_activations(one, 8, "fp16", pieces=True) < memory.temporal_activations(
        config, 8, "fp16", pieces=True
    )
    none = config.model_copy(update={"temporal": config.temporal.model_copy(update={"num_layers": 0})})
    assert memory.temporal_weights(none, "fp16") == 0


def test_chunks_cost_a_sweep_of_one_direction_without_its_large_products() -> None:
    config = preset("storm-7b")

    def flops(frames: int, pieces: bool) -> float:
        return sum(w.flops for w in work.temporal_work(config, frames, "fp16", pieces=pieces))

    assert flops(16, True) == flops(16, False)
    assert 1.02 < flops(128, True) / flops(128, False) < 1.1
    one = config.model_copy(update={"temporal": config.temporal.model_copy(update={"bidirectional": False})})
    assert sum(w.flops for w in work.temporal_work(one, 128, "fp16", pieces=True)) == sum(
        w.flops for w in work.temporal_work(one, 128, "fp16")
    )


def test_a_selector_scans_its_queries_too_and_never_goes_in_chunks() -> None:
    config = preset("bimba-7b")
    plain = config.model_copy(update={"temporal": config.temporal.model_copy(update={"queries": False})})
    assert config.scanned_tokens(64) == 64 * (729 + 196) == 59_200
    assert plain.scanned_tokens(64) == 64 * 729
    made = memory.temporal_activations(config, 64, "fp32", pieces=False)
    assert made == 59_200 * (2 * 3584 + 6 * 7168) * 4
    cpu = target("cpu")
    planned = make_plan(config, cpu, None, PlanOptions(64, "fp32", "fp32"))
    assert planned.stages["temporal"].activations == made
    cut = make_plan(plain, cpu, None, PlanOptions(64, "fp32", "fp32"))
    assert cut.stages["temporal"].activations < made / 10
