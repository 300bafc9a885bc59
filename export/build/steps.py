"""Which passes make a bundle's graphs those that an engine's TensorRT takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

from storm_edge.export.build.goal import Goal
from storm_edge.export.build.prepare import Pass, Step, prepared_graph
from storm_edge.export.build.tensorrt.versions import FIRST_ATTENTION, FIRST_FUNCTIONS, Version
from storm_edge.export.graph_file import Reader
from storm_edge.export.passes.block_weights import block_weights
from storm_edge.export.passes.drop_softmax_precision import drop_softmax_precision
from storm_edge.export.passes.fuse_decoder import fuse_decoder
from storm_edge.export.passes.int4_blocks import Bits
from storm_edge.export.passes.lower_attention import lower_attention
from storm_edge.export.passes.narrow import narrow
from storm_edge.export.passes.nbits_weights import nbits_weights
from storm_edge.export.passes.pin_length import pin_length
from storm_edge.export.passes.quantize import quantize
from storm_edge.export.passes.smoothquant import smoothquant
from storm_edge.export.passes.strip_functions import strip_functions
from storm_edge.export.passes.widen import widen
from storm_edge.runtime.bundle.calibration import QUANTIZED, Calibration, Scheme
from storm_edge.runtime.bundle.manifest import STAGES, Bundle, FileSpec, Stage
from storm_edge.runtime.config.schema import DType
from storm_edge.runtime.errors import BuildError, TargetError
from storm_edge.runtime.runners import RUNNERS

LENGTH_AXIS = "length"
# Kept out of int4: logits decide between tokens whose scores nearly tie.
INT4_KEPT = frozenset({"lm_head.weight", "model.embed_tokens.weight"})
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


def prepare(bundle: Bundle, goal: Goal) -> tuple[dict[Stage, str], dict[str, FileSpec]]:
    """Prepare the graphs of the stages of an engine that is compiled; returns their paths and the files that were made.

    Raises TargetError, or BuildError, where a graph turns out not to take a pass.
    """
    graphs: dict[Stage, str] = {}
    files: dict[str, FileSpec] = {}
    for stage in goal.options.stages:
        if stage != "decoder":
            steps = [*_encoder(bundle, stage, goal), *encoder_steps(goal.parsed_version)]
        elif RUNNERS[goal.llm_runner].compiles:
            steps = decoder_steps(bundle, goal)
        else:
            steps = onnxruntime_decoder_steps(bundle, goal)
        graphs[stage], made = prepared_graph(bundle, stage, goal.name, steps)
        files |= made
    return graphs, files


def smoothquant_steps(calibration: Calibration | None, stage: Stage) -> list[Step]:
    """The pass that smooths a stage's norms by a calibration's scales; none where it has none."""
    if calibration is None or not calibration.scales[stage]:
        return []

    def apply(model: onnx.ModelProto, readers: dict[str, Reader]) -> None:
        try:
            smoothquant(model, readers, calibration.scales[stage])
        except ValueError as e:
            raise BuildError(f"calibration {calibration.name}: {e}: repeat `storm calibrate`.") from e

    return [(f"smooth 1 {calibration.sha256}", apply)]


def quantize_step(calibration: Calibration, stage: Stage, scheme: Scheme) -> Step:
    """The pass that quantizes a stage's chosen layers by a calibration."""

    def apply(model: onnx.ModelProto, readers: dict[str, Reader]) -> None:
        try:
            quantize(model, readers, calibration.ranges[stage], calibration.chosen(stage, scheme), scheme)
        except ValueError as e:
            raise BuildError(
                f"calibration {calibration.name}: {e}: correct its layers.json or repeat `storm calibrate`."
            ) from e

    return f"quantize 1 {scheme} {calibration.sha256}", apply


def encoder_steps(version: Version) -> list[Step]:
    """The passes over vision and temporal that a TensorRT version needs."""
    if version < FIRST_FUNCTIONS:
        return [("lower attention 1", _plainly(lower_attention)), ("strip functions 1", _plainly(strip_functions))]
    if version < FIRST_ATTENTION:
        return [("lower attention 1", _plainly(lower_attention))]
    return [("drop softmax precision 1", _plainly(drop_softmax_precision))]


def decoder_steps(bundle: Bundle, goal: Goal) -> list[Step]:
    """The passes over a decoder that TensorRT runs."""
    length = _length(bundle, goal)
    return [
        *_decoder(bundle, goal),
        ("drop softmax precision 1", _plainly(drop_softmax_precision)),
        (f"pin length 1 {length}", _plainly(lambda model: pin_length(model, LENGTH_AXIS, length))),
    ]


def onnxruntime_decoder_steps(bundle: Bundle, goal: Goal) -> list[Step]:
    """The passes over a decoder of int4 weights that ONNX Runtime runs from 1.23 on, on a CPU and in CUDA."""
    length = _length(bundle, goal)

    def fuse(model: onnx.ModelProto, _: dict[str, Reader]) -> None:
        fuse_decoder(model, bundle.config.llm, length)

    blocks, nbits = nbits_steps(4, goal.options.int4_block)
    return [
        *_typed(bundle.manifest.dtype, "float16", [*smoothquant_steps(goal.calibration, "decoder"), blocks]),
        nbits,
        (f"fuse decoder 1 {length}", fuse),
    ]


def simulated_steps(bundle: Bundle, goal: Goal) -> dict[Stage, list[Step]]:
    """The passes to graphs that ONNX Runtime's CPU runs with a TensorRT engine's quantized weights and activations.

    They hold the integers, fp8 numbers and scales that the target's engine would. What is not quantized is rounded as
    there, and computed in fp32, and sums are fp32: this measures what quantizing does to answers, and nothing of speed.
    """
    made: dict[Stage, list[Step]] = {}
    for stage in STAGES:
        steps = _decoder(bundle, goal) if stage == "decoder" else _encoder(bundle, stage, goal)
        made[stage] = [*steps, ("widen 1", widen)]
    return made


def _encoder(bundle: Bundle, stage: Stage, goal: Goal) -> list[Step]:
    """The passes to a vision or temporal graph's types, whatever runs it."""
    stored, wanted = bundle.manifest.dtype, _DTYPES[goal.precision]
    if goal.precision not in QUANTIZED or goal.calibration is None:
        return _typed(stored, wanted)
    quantized = quantize_step(goal.calibration, stage, "fp8" if goal.precision == "fp8" else "int8")
    return [*_typed(stored, wanted, smoothquant_steps(goal.calibration, stage)), quantized]


def _decoder(bundle: Bundle, goal: Goal) -> list[Step]:
    """The passes to a decoder's types."""
    stored, wanted = bundle.manifest.dtype, _DECODER_DTYPES[goal.llm_precision]
    if goal.llm_precision == "int4":
        blocks = (f"int4 2 {goal.options.int4_block}", _int4(goal.options.int4_block))
        return _typed(stored, wanted, [*smoothquant_steps(goal.calibration, "decoder"), blocks])
    if goal.llm_precision == "fp8" and goal.calibration is not None:
        return [*_typed(stored, wanted), quantize_step(goal.calibration, "decoder", "fp8")]
    return _typed(stored, wanted)


def _length(bundle: Bundle, goal: Goal) -> int:
    """Tokens of the KV cache."""
    return goal.options.max_length or bundle.config.llm.max_position_embeddings


def _typed(stored: DType, wanted: DType, between: Sequence[Step] = ()) -> list[Step]:
    """From the bundle's type to an engine's; by way of fp32 where there is something to do in it: `between`."""
    if stored == wanted and not between:
        return []
    steps: list[Step] = [] if stored == "float32" else [("widen 1", widen)]
    steps += between
    return steps if wanted == "float32" else [*steps, (f"narrow 1 {wanted}", _narrow(wanted))]


def _narrow(dtype: DType) -> Pass:
    return lambda model, readers: narrow(model, readers, dtype)


def nbits_steps(bits: Bits, block: int) -> tuple[Step, Step]:
    """The passes to ONNX Runtime's int4 or int8 weights: the numbers, then its form of them."""

    def shrink(model: onnx.ModelProto, readers: dict[str, Reader]) -> None:
        block_weights(model, readers, bits, block, in_8=INT4_KEPT, partial=True)

    def pack(model: onnx.ModelProto, readers: dict[str, Reader]) -> None:
        nbits_weights(model, readers)

    return (f"blocks 1 {bits} {block}", shrink), ("nbits 4", pack)


def _int4(block: int) -> Pass:
    def apply(model: onnx.ModelProto, readers: dict[str, Reader]) -> None:
        if not block_weights(model, readers, 4, block, keep=INT4_KEPT):
            raise TargetError(f"no layer's inputs are a multiple of {block}: choose a smaller --int4-block.")

    return apply


def _plainly(apply: Callable[[onnx.ModelProto], None]) -> Pass:
    return lambda model, _: apply(model)
