"""A linear layer's tensors in a TensorRT-LLM checkpoint, in every precision; nothing is read before it is written.

What the loader does with them: preprocess_perlayer_weights in tensorrt_llm/models/modeling_utils.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import ml_dtypes
import numpy as np

from storm_edge.export.build.decoder_tensors import DecoderTensors
from storm_edge.export.build.tensorrt_llm.ranks import Linear, Part
from storm_edge.export.checkpoint.weights import NUMPY_DTYPES, Array, LazyTensor, convert
from storm_edge.export.passes.int4_blocks import block_integers, block_scales
from storm_edge.runtime.bundle.calibration import Range
from storm_edge.runtime.config.schema import DType

E4M3_LARGEST = 448.0
Tensors = dict[str, LazyTensor]


def plain(linear: Linear, source: DecoderTensors, dtype: DType) -> Tensors:
    """`weight` T[outputs, inputs], and `bias` T[outputs]: bf16 and fp16, and W8A16, which the loader rounds itself."""

    def weight() -> Array:
        return _stacked(linear, lambda part: convert(_part(source, part), dtype, part.name))

    return {f"{linear.name}.weight": LazyTensor(NUMPY_DTYPES[dtype], linear.shape, weight)} | bias(
        linear, source, dtype
    )


def int4(linear: Linear, source: DecoderTensors, dtype: DType, group: int) -> Tensors:
    """W4A16_AWQ: `weight` int8[outputs / 2, inputs], `weights_scaling_factor` T[outputs, inputs / group], `bias`.

    A byte holds two outputs, the even one in the low half, both in two's complement. A block is within one output, so a
    rank's integers and scales are those of the whole weight.
    """
    outputs, inputs = linear.shape

    @cache  # a hundredth of the weight, and dear to find
    def scales(part: Part) -> Array:
        return block_scales(_part(source, part), group, 4)  # (inputs / group, outputs)

    def packed() -> Array:
        rows = _stacked(linear, lambda part: block_integers(_part(source, part), scales(part), group, 4))
        packed: Array = (rows[0::2] & 15) | (rows[1::2] << 4)
        return packed

    def stacked_scales() -> Array:
        return _stacked(linear, lambda part: convert(scales(part), dtype, part.name))

    return {
        f"{linear.name}.weight": LazyTensor(np.dtype(np.int8), (outputs // 2, inputs), packed),
        f"{linear.name}.weights_scaling_factor": LazyTensor(
            NUMPY_DTYPES[dtype], (outputs, inputs // group), stacked_scales
        ),
    } | bias(linear, source, dtype)


def fp8(linear: Linear, source: DecoderTensors, dtype: DType, ranges: Mapping[str, Range]) -> Tensors:
    """FP8: `weight` e4m3[outputs, inputs], one float32 scale for it and one for what it multiplies, `bias`.

    The scale is that of all ranks, and of all weights in `scaled_with`.
    """

    @cache
    def scale() -> np.float32:
        return np.float32(source.largest(linear.scaled_with) / E4M3_LARGEST)

    def of(part: Part) -> Array:
        scaled = _part(source, part).astype(np.float32) / scale()
        return scaled.clip(-E4M3_LARGEST, E4M3_LARGEST).astype(ml_dtypes.float8_e4m3fn)

    return {
        f"{linear.name}.weight": LazyTensor(
            np.dtype(ml_dtypes.float8_e4m3fn), linear.shape, lambda: _stacked(linear, of)
        ),
        f"{linear.name}.weights_scaling_factor": _one(scale),
        f"{linear.name}.activation_scaling_factor": _one(
            lambda: np.float32(ranges[linear.input].largest / E4M3_LARGEST)
        ),
    } | bias(linear, source, dtype)


def kv_cache_scale(layer: int, ranges: Mapping[str, Range]) -> Tensors:
    """The one float32 scale of a layer's keys and values in an fp8 cache."""
    largest = max(ranges[name].largest for name in kv_names(layer))
    name = f"transformer.layers.{layer}.attention.kv_cache_scaling_factor"
    return {name: _one(lambda: np.float32(largest / E4M3_LARGEST))}


def kv_names(layer: int) -> tuple[str, str]:
    """What the decoder's graph calls the keys and values that a layer puts into the cache."""
    return f"model.layers.{layer}.self_attn.k_rotated", f"model.layers.{layer}.self_attn.v_proj"


def bias(linear: Linear, source: DecoderTensors, dtype: DType) -> Tensors:
    """`bias` T[outputs] of a layer that has one, else nothing."""
    if not linear.bias:
        return {}

    def read() -> Array:
        made = []
        for part in linear.parts:
            name = part.name.removesuffix("weight") + "bias"
            made.append(convert(source.read(name)[part.outputs.start : part.outputs.stop], dtype, name))
        return np.concatenate(made)

    return {f"{linear.name}.bias": LazyTensor(NUMPY_DTYPES[dtype], linear.shape[:1], read)}


def _part(source: DecoderTensors, part: Part) -> Array:
    inputs, outputs = (slice(x.start, x.stop) for x in (part.inputs, part.outputs))
    return source.read(part.name)[inputs, outputs]


def _stacked(linear: Linear, of: Callable[[Part], Array]) -> Array:
    """The parts [inputs, outputs], each made by `of`, as one matrix [outputs, inputs]."""
    stacked: Array = np.concatenate([of(part).T for part in linear.parts])
    return stacked


def _one(value: Callable[[], np.float32]) -> LazyTensor:
    return LazyTensor(np.dtype(np.float32), (1,), lambda: np.array([value()], np.float32))
