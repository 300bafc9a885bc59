"""A bundle's language model as a TensorRT-LLM checkpoint: config.json, and rank{r}.safetensors for every rank.

Written without the package, on any machine, a tensor at a time: never more than the largest tensor and its copy are in
memory. The format is TensorRT-LLM 1.2's, the last that compiles engines; docs/llm.md names its rules and sources.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storm_edge.export.build.decoder_tensors import DecoderTensors
from storm_edge.export.build.tensorrt_llm.config import checkpoint_config
from storm_edge.export.build.tensorrt_llm.ranks import Linear, check_tensor_parallel, linears, vocabulary_rows
from storm_edge.export.build.tensorrt_llm.weights import Tensors, fp8, int4, kv_cache_scale, kv_names, plain
from storm_edge.export.checkpoint.head import EMBEDDING, HEAD
from storm_edge.export.checkpoint.weights import NUMPY_DTYPES, Array, LazyTensor, Weights, convert, write_safetensors
from storm_edge.export.passes.smoothquant import smoothquant_steps
from storm_edge.export.passes.step import Step
from storm_edge.export.passes.widen import widen_step
from storm_edge.export.trace.decoder import FINAL_NORM
from storm_edge.runtime.bundle.calibration import Calibration, Range
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import DType
from storm_edge.runtime.errors import TargetError
from storm_edge.runtime.llm.embedding import TENSOR_NAME

CONFIG = "config.json"
# Activations of a language model reach further than float16 does.
_DTYPES: dict[str, DType] = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp8": "bfloat16",
    "int8": "bfloat16",
    "int4": "bfloat16",
}


@dataclass(frozen=True)
class Written:
    """The files of a checkpoint, config.json first, and what a user should know."""

    files: list[Path]
    notes: list[str]


def rank_file(rank: int) -> str:
    """The file of a rank's tensors."""
    return f"rank{rank}.safetensors"


def write_checkpoint(
    bundle: Bundle,
    folder: Path,
    precision: str,
    tp: int = 1,
    *,
    calibration: Calibration | None = None,
    group: int = 128,
    progress: Callable[[str], None] = lambda _: None,
) -> Written:
    """Write the checkpoint into an existing folder.

    `precision`: bf16, fp16, fp8 (by the ranges of `calibration`, which observed the language model), int8 (W8A16) or
    int4 (W4A16_AWQ, in blocks of `group` inputs, scaled by `calibration` where it has scales). Raises TargetError for a
    precision or number of ranks that the format has not, UsageError where fp16 cannot hold a weight.
    """
    if precision not in _DTYPES:
        raise TargetError(f"TensorRT-LLM takes no --llm-precision {precision}: choose {', '.join(_DTYPES)}.")
    config = bundle.config.llm
    check_tensor_parallel(config, tp, group if precision == "int4" else None)
    scaled = smoothquant_steps(calibration, "decoder") if precision == "int4" else []
    wide: list[Step] = [widen_step()] if scaled and bundle.manifest.dtype != "float32" else []
    steps = [*wide, *scaled]
    ranges = calibration.ranges["decoder"] if calibration is not None and precision == "fp8" else {}
    fp8_cache = precision == "fp8" and all(n in ranges for i in range(config.num_hidden_layers) for n in kv_names(i))
    writer = _Writer(bundle, DecoderTensors(bundle, steps), precision, group, calibration, ranges, fp8_cache)
    made = checkpoint_config(
        config, precision, writer.dtype, tp, group=group, fp8_cache=fp8_cache, excluded=writer.excluded()
    )
    files = [folder / CONFIG]
    files[0].write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    for rank in range(tp):
        progress(f"rank {rank + 1} of {tp}")
        files.append(folder / rank_file(rank))
        writer.write(files[-1], tp, rank)
    notes = []
    if precision == "fp8" and not fp8_cache:
        notes.append(
            "the calibration has no ranges of keys and values, so their cache keeps 16 bits: repeat `storm calibrate"
            " --llm` for one of 8."
        )
    return Written(files, notes)


@dataclass(frozen=True)
class _Writer:
    bundle: Bundle
    source: DecoderTensors
    precision: str
    group: int
    calibration: Calibration | None
    ranges: dict[str, Range]
    fp8_cache: bool

    @property
    def dtype(self) -> DType:
        return _DTYPES[self.precision]

    def excluded(self) -> list[str]:
        """The modules that a calibration's layers.json keeps out of fp8."""
        layers = range(self.bundle.config.llm.num_hidden_layers)
        all_of_them = [linear for i in layers for linear in linears(self.bundle.config.llm, i, 1, 0)]
        return [x.name for x in all_of_them if self.precision == "fp8" and not self._in_fp8(x)]

    def _in_fp8(self, linear: Linear) -> bool:
        assert self.calibration is not None
        chosen = {x.weight for x in self.calibration.layers.stages["decoder"].values() if x.quantized_in("fp8")}
        return chosen.issuperset(linear.scaled_with)

    def write(self, path: Path, tp: int, rank: int) -> None:
        config = self.bundle.config.llm
        with Weights.open(self.bundle.file(self.bundle.manifest.embedding)) as table:
            tensors: Tensors = {"transformer.vocab_embedding.weight": table.lazy(TENSOR_NAME, self.dtype)}
            for i in range(config.num_hidden_layers):
                hf, ours = f"model.layers.{i}", f"transformer.layers.{i}"
                tensors[f"{ours}.input_layernorm.weight"] = self._norm(f"{hf}.input_layernorm.weight")
                tensors[f"{ours}.post_layernorm.weight"] = self._norm(f"{hf}.post_attention_layernorm.weight")
                for linear in linears(config, i, tp, rank):
                    tensors |= self._linear(linear)
                if self.fp8_cache:
                    tensors |= kv_cache_scale(i, self.ranges)
            tensors["transformer.ln_f.weight"] = self._norm(FINAL_NORM)
            tensors["lm_head.weight"] = self._head(vocabulary_rows(config, tp, rank))
            write_safetensors(path, tensors)

    def _linear(self, linear: Linear) -> Tensors:
        if self.precision == "int4":
            return int4(linear, self.source, self.dtype, self.group)
        if self.precision == "fp8" and self._in_fp8(linear):
            return fp8(linear, self.source, self.dtype, self.ranges)
        return plain(linear, self.source, self.dtype)

    def _norm(self, name: str) -> LazyTensor:
        shape = (self.bundle.config.llm.hidden_size,)
        return LazyTensor(NUMPY_DTYPES[self.dtype], shape, lambda: convert(self.source.read(name), self.dtype, name))

    def _head(self, rows: range) -> LazyTensor:
        config = self.bundle.config.llm
        name = EMBEDDING if config.tie_word_embeddings else HEAD

        def read() -> Array:
            there = convert(self.source.read(name)[:, rows.start : rows.stop].T, self.dtype, name)
            missing = len(rows) - len(there)
            return np.pad(there, ((0, missing), (0, 0))) if missing else there

        shape = (len(rows), config.hidden_size)
        return LazyTensor(NUMPY_DTYPES[self.dtype], shape, read)
