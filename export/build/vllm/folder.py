"""A bundle's language model as a Hugging Face folder: plain, with fp8 as ModelOpt writes it, or with our int4.

fp8: hf_quant_config.json, `weight_scale` and `input_scale`. int4: compressed-tensors' "pack-quantized" in config.json,
`weight_packed`, `weight_scale`, `weight_shape`. Both are read by vLLM as they are. Tensors are written one at a time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from storm_edge.export.build.decoder_tensors import DecoderTensors
from storm_edge.export.build.tensorrt_llm.ranks import Linear, Part, linears
from storm_edge.export.build.tensorrt_llm.weights import Tensors, bias, fp8, plain
from storm_edge.export.checkpoint.head import EMBEDDING, HEAD
from storm_edge.export.checkpoint.shards import SINGLE_NAME
from storm_edge.export.checkpoint.weights import (
    NUMPY_DTYPES,
    Array,
    LazyTensor,
    Weights,
    convert,
    write_safetensors,
)
from storm_edge.export.passes.int4_blocks import block_integers, block_scales
from storm_edge.export.passes.smoothquant import smoothquant_steps
from storm_edge.export.passes.step import Step
from storm_edge.export.passes.widen import widen_step
from storm_edge.export.trace.decoder import FINAL_NORM
from storm_edge.runtime.bundle.calibration import Calibration
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import DType, LanguageConfig
from storm_edge.runtime.errors import TargetError
from storm_edge.runtime.llm.embedding import TENSOR_NAME

CONFIG, QUANTIZATION = "config.json", "hf_quant_config.json"
_DTYPES: dict[str, DType] = {"bf16": "bfloat16", "fp16": "float16", "fp8": "bfloat16", "int4": "bfloat16"}


def write_folder(
    bundle: Bundle,
    folder: Path,
    precision: str,
    *,
    calibration: Calibration | None = None,
    group: int = 128,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write the language model and its tokenizer into an existing folder; returns the files, config.json first.

    fp8 goes by the ranges of `calibration`, which observed the language model; int4, in blocks of `group` inputs, by
    its scales where it has some. Raises TargetError for a precision that there is not, or blocks that do not divide a
    layer's inputs; UsageError where fp16 cannot hold a weight.
    """
    config = bundle.config.llm
    if precision not in _DTYPES:
        raise TargetError(f"vLLM takes no --llm-precision {precision}: choose {', '.join(_DTYPES)}.")
    if precision == "int4" and (config.hidden_size % group or config.intermediate_size % group):
        raise TargetError(
            f"{config.hidden_size} or {config.intermediate_size} inputs of a layer are no multiple of {group}, int4's"
            " block: choose another --int4-block, or another --llm-precision."
        )
    steps: list[Step] = []
    if precision == "int4" and (scaled := smoothquant_steps(calibration, "decoder")):
        steps = [widen_step(), *scaled]
    dtype, source = _DTYPES[precision], DecoderTensors(bundle, steps)
    files = [folder / CONFIG, folder / SINGLE_NAME]
    for name in bundle.manifest.files:
        if name.rpartition("/")[0] == bundle.manifest.tokenizer:  # with chat template and generation_config.json
            files.append(Path(shutil.copyfile(bundle.file(name), folder / Path(name).name)))
    left: list[str] = ["lm_head"]
    with Weights.open(bundle.file(bundle.manifest.embedding)) as table:
        tensors: Tensors = {EMBEDDING: table.lazy(TENSOR_NAME, dtype)}
        for i in range(config.num_hidden_layers):
            for norm in ("input_layernorm", "post_attention_layernorm"):
                name = f"model.layers.{i}.{norm}.weight"
                tensors[name] = _vector(source, name, config, dtype)
            for linear in _linears(config, i):
                if precision == "int4":
                    tensors |= _int4(linear, source, dtype, group)
                elif precision == "fp8" and calibration and _chosen(calibration).issuperset(linear.scaled_with):
                    tensors |= _fp8(linear, source, dtype, calibration)
                else:
                    left.append(linear.name)
                    tensors |= plain(linear, source, dtype)
        tensors[FINAL_NORM] = _vector(source, FINAL_NORM, config, dtype)
        if not config.tie_word_embeddings:
            tensors[HEAD] = _head(source, config, dtype)
        progress("write")
        write_safetensors(folder / SINGLE_NAME, tensors)
    made = hf_config(config, dtype)
    if precision == "int4":
        made["quantization_config"] = _compressed_tensors(group)
    if precision == "fp8":
        quantization = {"quant_algo": "FP8", "kv_cache_quant_algo": None, "exclude_modules": left}
        files.append(folder / QUANTIZATION)
        _write(files[-1], {"producer": {"name": "storm-edge"}, "quantization": quantization})
    _write(files[0], made)
    return files


def hf_config(config: LanguageConfig, dtype: DType) -> dict[str, Any]:
    """transformers' Qwen2Config."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "torch_dtype": dtype,
        "hidden_act": "silu",
        "use_sliding_window": False,
        **config.model_dump(),
    }


def _linears(config: LanguageConfig, layer: int) -> list[Linear]:
    """The linear layers as Hugging Face has them: q, k and v, gate and up by themselves."""
    fused = linears(config, layer, 1, 0)
    return [
        Linear(part.name.removesuffix(".weight"), (part,), linear.input, linear.scaled_with, linear.bias)
        for linear in fused
        for part in linear.parts
    ]


def _int4(linear: Linear, source: DecoderTensors, dtype: DType, group: int) -> Tensors:
    """`weight_packed` int32[outputs, inputs / 8], the first of eight in the lowest bits, each plus 8."""
    outputs, inputs = linear.shape
    (part,) = linear.parts

    @cache
    def scales() -> Array:
        return block_scales(source.read(part.name), group, 4)

    def packed() -> Array:
        unsigned = (block_integers(source.read(part.name), scales(), group, 4).T + np.int8(8)).astype(np.uint8)
        return np.ascontiguousarray(unsigned[:, 0::2] | (unsigned[:, 1::2] << 4)).view("<i4")

    def transposed() -> Array:
        return convert(np.ascontiguousarray(scales().T), dtype, part.name)

    shape = np.array([outputs, inputs], np.int64)
    return {
        f"{linear.name}.weight_packed": LazyTensor(np.dtype(np.int32), (outputs, inputs // 8), packed),
        f"{linear.name}.weight_scale": LazyTensor(NUMPY_DTYPES[dtype], (outputs, inputs // group), transposed),
        f"{linear.name}.weight_shape": LazyTensor(shape.dtype, (2,), lambda: shape),
    } | bias(linear, source, dtype)


def _fp8(linear: Linear, source: DecoderTensors, dtype: DType, calibration: Calibration) -> Tensors:
    names: Mapping[str, str] = {"weights_scaling_factor": "weight_scale", "activation_scaling_factor": "input_scale"}
    made = fp8(linear, source, dtype, calibration.ranges["decoder"])
    return {f"{linear.name}.{names.get(suffix := key.rsplit('.', 1)[1], suffix)}": x for key, x in made.items()}


def _chosen(calibration: Calibration) -> set[str]:
    return {x.weight for x in calibration.layers.stages["decoder"].values() if x.quantized_in("fp8")}


def _vector(source: DecoderTensors, name: str, config: LanguageConfig, dtype: DType) -> LazyTensor:
    return LazyTensor(NUMPY_DTYPES[dtype], (config.hidden_size,), lambda: convert(source.read(name), dtype, name))


def _head(source: DecoderTensors, config: LanguageConfig, dtype: DType) -> LazyTensor:
    part = Part(HEAD, range(config.hidden_size), range(config.vocab_size))
    return plain(Linear("lm_head", (part,), "", ()), source, dtype)[HEAD]


def _compressed_tensors(group: int) -> dict[str, Any]:
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": group}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights | {"dynamic": False}}},
    }


def _write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
