"""Which passes make a bundle's graphs those that an engine's TensorRT takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

from storm_edge.export.build.options import FIRST_ATTENTION, FIRST_DECODER, FIRST_FUNCTIONS, BuildOptions, Version
from storm_edge.export.build.prepared import Pass, Step, prepared_graph
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
from storm_edge.runtime.bundle.calibration import QUANTIZED, Calibration, Scheme, calibration_of
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


def prepare(
    bundle: Bundle,
    name: str,
    precision: str,
    llm_precision: str,
    version: Version,
    options: BuildOptions,
    *,
    llm_runner: str = "tensorrt",
) -> tuple[dict[Stage, str], dict[str, FileSpec]]:
    """Prepare the graphs of `options.stages` for the engine `name`; returns their paths and the files that were made.

    `version` is TensorRT's; TensorRT for RTX counts as (10, 15); `llm_runner` runs the decoder. Raises
    TargetError where it cannot run a stage, BuildError where int8 or fp8 lack a calibration.
    """
    calibration = calibration_of(bundle, precision, llm_precision, options.calibration)
    graphs: dict[Stage, str] = {}
    files: dict[str, FileSpec] = {}
    for stage in options.stages:
        if stage == "decoder" and not RUNNERS[llm_runner].compiles:
            steps = onnxruntime_decoder_steps(bundle, calibration, options)
        elif stage == "decoder":
            steps = decoder_steps(bundle, llm_precision, version, calibration, options)
        else:
            steps = [*_encoder(bundle, stage, precision, calibration), *encoder_steps(version)]
        graphs[stage], made = prepared_graph(bundle, stage, name, steps)
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


def decoder_steps(
    bundle: Bundle, precision: str, version: Version, calibration: Calibration | None, options: BuildOptions
) -> list[Step]:
    """The passes over the decoder; raises TargetError where TensorRT is too old for it."""
    if version < FIRST_DECODER:
        raise TargetError(
            f"TensorRT {version[0]}.{version[1]} cannot run the language model (its operators start at 10.15): take"
            " TensorRT 10.15 or newer (--tensorrt 10.16 prepares for it elsewhere), or build the rest alone with"
            " --stages vision,temporal."
        )
    length = _length(bundle, options)
    return [
        *_decoder(bundle, precision, calibration, options),
        ("drop softmax precision 1", _plainly(drop_softmax_precision)),
        (f"pin length 1 {length}", _plainly(lambda model: pin_length(model, LENGTH_AXIS, length))),
    ]


def onnxruntime_decoder_steps(bundle: Bundle, calibration: Calibration | None, options: BuildOptions) -> list[Step]:
    """The passes over a decoder of int4 weights that ONNX Runtime runs from 1.23 on, on a CPU and in CUDA."""
    length, head = _length(bundle, options), bundle.config.llm.head_dim
    if head % 16:
        raise TargetError(
            f"the language model's heads have {head} channels, and ONNX Runtime's fused attention, which runs it here,"
            " takes multiples of 16: build the rest alone with --stages vision,temporal."
        )

    def fuse(model: onnx.ModelProto, _: dict[str, Reader]) -> None:
        fuse_decoder(model, bundle.config.llm, length)

    blocks, nbits = nbits_steps(4, options.int4_block)
    return [
        *_typed(bundle.manifest.dtype, "float16", [*smoothquant_steps(calibration, "decoder"), blocks]),
        nbits,
        (f"fuse decoder 1 {length}", fuse),
    ]


def simulated_steps(
    bundle: Bundle, precision: str, llm_precision: str, calibration: Calibration | None, options: BuildOptions
) -> dict[Stage, list[Step]]:
    """The passes to graphs that ONNX Runtime's CPU runs with a TensorRT engine's quantized weights and activations.

    What is not quantized is rounded as there, and computed in fp32.
    """
    made: dict[Stage, list[Step]] = {}
    for stage in STAGES:
        if stage == "decoder":
            steps = _decoder(bundle, llm_precision, calibration, options)
        else:
            steps = _encoder(bundle, stage, precision, calibration)
        made[stage] = [*steps, ("widen 1", widen)]
    return made


def _encoder(bundle: Bundle, stage: Stage, precision: str, calibration: Calibration | None) -> list[Step]:
    """The passes to a vision or temporal graph's types, whatever runs it."""
    stored, wanted = bundle.manifest.dtype, _DTYPES[precision]
    if precision not in QUANTIZED or calibration is None:
        return _typed(stored, wanted)
    quantized = quantize_step(calibration, stage, "fp8" if precision == "fp8" else "int8")
    return [*_typed(stored, wanted, smoothquant_steps(calibration, stage)), quantized]


def _decoder(bundle: Bundle, precision: str, calibration: Calibration | None, options: BuildOptions) -> list[Step]:
    """The passes to a decoder's types."""
    stored, wanted = bundle.manifest.dtype, _DECODER_DTYPES[precision]
    if precision == "int4":
        blocks = (f"int4 2 {options.int4_block}", _int4(options.int4_block))
        return _typed(stored, wanted, [*smoothquant_steps(calibration, "decoder"), blocks])
    if precision == "fp8" and calibration is not None:
        return [*_typed(stored, wanted), quantize_step(calibration, "decoder", "fp8")]
    return _typed(stored, wanted)


def _length(bundle: Bundle, options: BuildOptions) -> int:
    """Tokens of the KV cache; raises TargetError for more than the model was made for."""
    most = bundle.config.llm.max_position_embeddings
    length = options.max_length or most
    if not 1 <= length <= most:
        raise TargetError(f"--max-length {length} is outside what the model was made for: give 1 to {most}.")
    return length


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
