"""Which passes make a bundle's graphs those that an engine runs, for every kind of engine."""

from __future__ import annotations

from collections.abc import Sequence

from storm_edge.export.build.goal import Goal
from storm_edge.export.build.tensorrt.versions import FIRST_ATTENTION, FIRST_FUNCTIONS, Version
from storm_edge.export.passes.block_weights import blocks_step, int4_step
from storm_edge.export.passes.drop_softmax_precision import drop_softmax_precision_step
from storm_edge.export.passes.fuse_decoder import can_fuse, fuse_decoder_step
from storm_edge.export.passes.int4_blocks import Bits
from storm_edge.export.passes.lower_attention import lower_attention_step
from storm_edge.export.passes.narrow import narrow_step
from storm_edge.export.passes.nbits_weights import nbits_weights_step
from storm_edge.export.passes.pin_length import pin_length_step
from storm_edge.export.passes.quantize import quantize_step
from storm_edge.export.passes.smoothquant import smoothquant_steps
from storm_edge.export.passes.step import Step
from storm_edge.export.passes.strip_functions import strip_functions_step
from storm_edge.export.passes.widen import widen_step
from storm_edge.runtime.bundle.calibration import QUANTIZED
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.config.schema import DType
from storm_edge.runtime.config.sizes import kv_length
from storm_edge.runtime.runners import RUNNERS

LENGTH_AXIS = "length"
_INT8_BLOCK = 128  # of a language model's int8 weights
# Around int8 and fp8 layers everything else is fp16, which has more bits than they need and fuses everywhere.
_DTYPES: dict[str, DType] = {
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
    "int8": "float16",
    "fp8": "float16",
}
# A language model's activations reach further than fp16 does.
_DECODER_DTYPES: dict[str, DType] = {
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8": "bfloat16",
    "int4": "bfloat16",
}


def steps_for(bundle: Bundle, goal: Goal, stage: Stage) -> list[Step]:
    """The passes over a stage's canonical graph."""
    if goal.options.simulate:
        return _simulated(bundle, goal, stage)
    runner = RUNNERS[goal.runner]
    if runner.device == "cpu":
        return _on_cpu(bundle, goal, stage)
    if stage != "decoder":
        lowered = _lowered(goal.parsed_version, goal.options.wide_softmax) if runner.compiles else []
        return [*_encoder(bundle, goal, stage), *lowered]
    if RUNNERS[goal.llm_runner].compiles:
        pinned = pin_length_step(LENGTH_AXIS, _length(bundle, goal))
        return [*_decoder(bundle, goal), drop_softmax_precision_step(), pinned]
    return _fused_decoder(bundle, goal)


def nbits_steps(bits: Bits, block: int) -> list[Step]:
    """The passes to ONNX Runtime's int4 or int8 weights: the numbers, then its form of them."""
    return [blocks_step(bits, block), nbits_weights_step()]


def _on_cpu(bundle: Bundle, goal: Goal, stage: Stage) -> list[Step]:
    """To fp32 from half types, and to what is quantized, which CPUs multiply as uint8 by int8."""
    steps = [] if bundle.manifest.dtype == "float32" else [widen_step()]
    if stage != "decoder" and goal.precision == "int8" and goal.calibration is not None:
        steps += [*smoothquant_steps(goal.calibration, stage), quantize_step(goal.calibration, stage, "uint8")]
    elif stage == "decoder" and goal.llm_precision == "int8":
        steps += nbits_steps(8, _INT8_BLOCK)
    elif stage == "decoder" and goal.llm_precision == "int4":
        steps += [*smoothquant_steps(goal.calibration, stage), *nbits_steps(4, goal.options.int4_block)]
    llm = bundle.config.llm
    # Without other steps the canonical graph runs, which shares its weights with the bundle.
    if stage == "decoder" and steps and can_fuse(llm, llm.max_position_embeddings):
        steps.append(fuse_decoder_step(llm, llm.max_position_embeddings))
    return steps


def _simulated(bundle: Bundle, goal: Goal, stage: Stage) -> list[Step]:
    """To graphs that ONNX Runtime's CPU runs with a TensorRT engine's quantized weights and activations.

    They hold the integers, fp8 numbers and scales that the target's engine would. What is not quantized is rounded as
    there, and computed in fp32, and sums are fp32: this measures what quantizing does to answers, and nothing of speed.
    """
    steps = _decoder(bundle, goal) if stage == "decoder" else _encoder(bundle, goal, stage)
    return [*steps, widen_step()]


def _fused_decoder(bundle: Bundle, goal: Goal) -> list[Step]:
    """To a decoder that ONNX Runtime runs from 1.23 on, on a CPU and in CUDA; around int4 weights it is fp16."""
    fused = fuse_decoder_step(bundle.config.llm, _length(bundle, goal))
    if goal.llm_precision != "int4":
        return [*_typed(bundle.manifest.dtype, _DECODER_DTYPES[goal.llm_precision]), fused]
    blocks, packed = nbits_steps(4, goal.options.int4_block)
    scaled = smoothquant_steps(goal.calibration, "decoder")
    return [*_typed(bundle.manifest.dtype, "float16", [*scaled, blocks]), packed, fused]


def _lowered(version: Version, wide_softmax: bool) -> list[Step]:
    """What a TensorRT version needs in vision and temporal."""
    if version < FIRST_FUNCTIONS:
        return [lower_attention_step(wide_softmax), strip_functions_step()]
    if version < FIRST_ATTENTION:
        return [lower_attention_step(wide_softmax)]
    return [drop_softmax_precision_step()]


def _encoder(bundle: Bundle, goal: Goal, stage: Stage) -> list[Step]:
    """To a vision or temporal graph's types, whatever runs it."""
    stored, wanted = bundle.manifest.dtype, _DTYPES[goal.precision]
    if goal.precision not in QUANTIZED or goal.calibration is None:
        return _typed(stored, wanted)
    quantized = quantize_step(goal.calibration, stage, "fp8" if goal.precision == "fp8" else "int8")
    return [*_typed(stored, wanted, smoothquant_steps(goal.calibration, stage)), quantized]


def _decoder(bundle: Bundle, goal: Goal) -> list[Step]:
    """To a decoder's types."""
    stored, wanted = bundle.manifest.dtype, _DECODER_DTYPES[goal.llm_precision]
    if goal.llm_precision == "int4":
        scaled = smoothquant_steps(goal.calibration, "decoder")
        return _typed(stored, wanted, [*scaled, int4_step(goal.options.int4_block)])
    if goal.llm_precision == "fp8" and goal.calibration is not None:
        return [*_typed(stored, wanted), quantize_step(goal.calibration, "decoder", "fp8")]
    return _typed(stored, wanted)


def _length(bundle: Bundle, goal: Goal) -> int:
    """Tokens of the KV cache."""
    return kv_length(bundle.config, goal.options.max_frames, goal.options.max_length)


def _typed(stored: DType, wanted: DType, between: Sequence[Step] = ()) -> list[Step]:
    """From the bundle's type to an engine's; by way of fp32 where there is something to do in it: `between`."""
    if stored == wanted and not between:
        return []
    steps = [*([] if stored == "float32" else [widen_step()]), *between]
    return steps if wanted == "float32" else [*steps, narrow_step(wanted)]
