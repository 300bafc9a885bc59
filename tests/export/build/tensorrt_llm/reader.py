"""Reads and runs a TensorRT-LLM 1.2 checkpoint of Qwen2 in numpy, by the format's rules and none of the writer's code.

Names and shapes: tensorrt_llm/models/qwen/convert.py. Packing of int4: preprocess_perlayer_weights in
tensorrt_llm/models/modeling_utils.py, which transposes `weight` and takes the low half of a byte first. fp8: a weight
and what it multiplies have one scale each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

_TYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I8": np.int8}
_TYPES["F8_E4M3"] = ml_dtypes.float8_e4m3fn
Array = np.ndarray[Any, Any]


class Rank:
    """The tensors of one rank{r}.safetensors, mapped."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__")
        self._header, self._start, self._path = header, 8 + length, path

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __getitem__(self, name: str) -> Array:
        entry = self._header[name]
        begin, end = entry["data_offsets"]
        raw = np.memmap(self._path, np.uint8, "r", self._start + begin, (end - begin,))
        return raw.view(_TYPES[entry["dtype"]]).reshape(entry["shape"])


class Checkpoint:
    """A folder with config.json and a file for every rank."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.quantization = self.config["quantization"]
        self.tp = self.config["mapping"]["tp_size"]
        assert self.config["mapping"]["world_size"] == self.tp
        assert {p.name for p in folder.glob("rank*")} == {f"rank{r}.safetensors" for r in range(self.tp)}
        self.ranks = [Rank(folder / f"rank{r}.safetensors") for r in range(self.tp)]
        c = self.config
        self.heads, self.head = c["num_attention_heads"] // self.tp, c["head_size"]
        self.kv_heads = max(1, c["num_key_value_heads"] // self.tp)
        self.dtype = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}[c["dtype"]]

    def check(self) -> None:
        """Every tensor that the loader requires is there with its type and shape, and nothing else is."""
        expected = {name: spec for name, spec in self._expected()}
        for rank in self.ranks:
            found = {name: (rank[name].dtype, rank[name].shape) for name in rank}
            assert found == expected

    def _expected(self) -> Iterator[tuple[str, tuple[Any, tuple[int, ...]]]]:
        c, tp, t = self.config, self.tp, np.dtype(self.dtype)
        wide, width, vocabulary = c["intermediate_size"] // tp, c["hidden_size"], c["vocab_size"]
        yield "transformer.vocab_embedding.weight", (t, (vocabulary, width))
        yield "transformer.ln_f.weight", (t, (width,))
        yield "lm_head.weight", (t, (-(-vocabulary // tp), width))
        rows = (self.heads + 2 * self.kv_heads) * self.head
        linears = {
            "attention.qkv": (rows, width),
            "attention.dense": (width, self.heads * self.head),
            "mlp.fc": (wide, width),
            "mlp.gate": (wide, width),
            "mlp.proj": (width, wide),
        }
        for i in range(c["num_hidden_layers"]):
            at = f"transformer.layers.{i}"
            yield f"{at}.input_layernorm.weight", (t, (width,))
            yield f"{at}.post_layernorm.weight", (t, (width,))
            yield f"{at}.attention.qkv.bias", (t, (rows,))
            if self.quantization["kv_cache_quant_algo"] == "FP8":
                yield f"{at}.attention.kv_cache_scaling_factor", (np.dtype(np.float32), (1,))
            for name, (out, inputs) in linears.items():
                algorithm = self.algorithm(f"{at}.{name}")
                if algorithm == "W4A16_AWQ":
                    yield f"{at}.{name}.weight", (np.dtype(np.int8), (out // 2, inputs))
                    yield f"{at}.{name}.weights_scaling_factor", (t, (out, inputs // self.quantization["group_size"]))
                elif algorithm == "FP8":
                    yield f"{at}.{name}.weight", (np.dtype(ml_dtypes.float8_e4m3fn), (out, inputs))
                    yield f"{at}.{name}.weights_scaling_factor", (np.dtype(np.float32), (1,))
                    yield f"{at}.{name}.activation_scaling_factor", (np.dtype(np.float32), (1,))
                else:
                    yield f"{at}.{name}.weight", (t, (out, inputs))

    def algorithm(self, module: str) -> str | None:
        """How a module is quantized; W8A16 is done by the loader, so its weights are plain here."""
        excluded = module in (self.quantization["exclude_modules"] or ())
        algorithm = self.quantization["quant_algo"]
        return None if excluded or algorithm == "W8A16" else algorithm

    def matrix(self, rank: int, module: str) -> Array:
        """[outputs, inputs] of a rank's linear layer: as stored where it is plain, else dequantized to float32."""
        weight, algorithm = self.ranks[rank][f"{module}.weight"], self.algorithm(module)
        if algorithm is None:
            return weight
        scale = self.ranks[rank][f"{module}.weights_scaling_factor"].astype(np.float32)
        if algorithm == "FP8":
            return weight.astype(np.float32) * scale
        assert scale.shape[0] > scale.shape[1]  # or the loader takes it for transposed already
        return int4_of(weight) * scale.repeat(self.quantization["group_size"], axis=1)

    def whole(self, layer: int) -> dict[str, Array]:
        """The matrices and biases of a layer with all ranks put together, by their Hugging Face names."""
        at = f"transformer.layers.{layer}"
        made: dict[str, Array] = {}
        stacks = {
            "weight": [self.matrix(r, f"{at}.attention.qkv") for r in range(self.tp)],
            "bias": [rank[f"{at}.attention.qkv.bias"] for rank in self.ranks],
        }
        q, kv = self.heads * self.head, self.kv_heads * self.head
        for kind, stack in stacks.items():
            parts = [np.split(x, [q, q + kv]) for x in stack]
            made[f"self_attn.q_proj.{kind}"] = np.concatenate([p[0] for p in parts])
            repeats = max(1, self.tp // self.config["num_key_value_heads"])
            for j, name in ((1, "k_proj"), (2, "v_proj")):
                for i, part in enumerate(parts):  # a head that several ranks have is the same on each
                    assert np.array_equal(part[j], parts[i // repeats * repeats][j])
                made[f"self_attn.{name}.{kind}"] = np.concatenate([p[j] for p in parts[::repeats]])
        for module, name, axis in (
            ("attention.dense", "self_attn.o_proj", 1),
            ("mlp.fc", "mlp.gate_proj", 0),
            ("mlp.gate", "mlp.up_proj", 0),
            ("mlp.proj", "mlp.down_proj", 1),
        ):
            parts_of_module = [self.matrix(r, f"{at}.{module}") for r in range(self.tp)]
            made[f"{name}.weight"] = np.concatenate(parts_of_module, axis=axis)
        for norm, name in (("input_layernorm", "input_layernorm"), ("post_layernorm", "post_attention_layernorm")):
            made[f"{name}.weight"] = self.same_on_all(f"{at}.{norm}.weight")
        return made

    def same_on_all(self, name: str) -> Array:
        """A tensor that every rank has."""
        first = self.ranks[0][name]
        assert all(np.array_equal(rank[name], first) for rank in self.ranks[1:])
        return first

    def head_matrix(self) -> Array:
        """lm_head [vocabulary, D]; the rows that fill it up are zeros."""
        rows = np.concatenate([rank["lm_head.weight"] for rank in self.ranks])
        assert not rows[self.config["vocab_size"] :].any()
        return rows[: self.config["vocab_size"]]

    def logits(self, ids: list[int], prompt_table: Array | None = None) -> Array:
        """float32 [vocabulary] after `ids`; an id from vocab_size upward is a row of the prompt table."""
        vocabulary = self.config["vocab_size"]
        table = self.same_on_all("transformer.vocab_embedding.weight").astype(np.float32)
        if prompt_table is not None:
            table = np.concatenate([table, prompt_table])
        assert max(ids) < len(table)
        x = table[ids]
        for i in range(self.config["num_hidden_layers"]):
            at = f"transformer.layers.{i}"
            normed = self._norm(x, f"{at}.input_layernorm")
            x = x + sum(self._attention(r, f"{at}.attention", normed) for r in range(self.tp))  # the all-reduce
            normed = self._norm(x, f"{at}.post_layernorm")
            x = x + sum(self._mlp(r, f"{at}.mlp", normed) for r in range(self.tp))
        last = self._norm(x, "transformer.ln_f")[-1]
        rows = [last @ rank["lm_head.weight"].astype(np.float32).T for rank in self.ranks]
        return np.concatenate(rows)[:vocabulary]

    def _norm(self, x: Array, name: str) -> Array:
        weight = self.same_on_all(f"{name}.weight").astype(np.float32)
        return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + self.config["norm_epsilon"]) * weight

    def _linear(self, rank: int, module: str, x: Array) -> Array:
        if self.algorithm(module) == "FP8":
            scale = self.ranks[rank][f"{module}.activation_scaling_factor"]
            x = (x / scale).clip(-448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
        return x @ self.matrix(rank, module).astype(np.float32).T

    def _attention(self, rank: int, at: str, x: Array) -> Array:
        bias = self.ranks[rank][f"{at}.qkv.bias"].astype(np.float32)
        rows = (self._linear(rank, f"{at}.qkv", x) + bias).reshape(len(x), -1, self.head).swapaxes(0, 1)
        q, k, v = np.split(rows, [self.heads, self.heads + self.kv_heads])  # (heads, S, head)
        q, k = self._rotated(q), self._rotated(k)
        k, v = (kv.repeat(self.heads // self.kv_heads, axis=0) for kv in (k, v))
        scores = q @ k.swapaxes(1, 2) / np.sqrt(self.head)
        scores[:, ~np.tri(len(x), dtype=bool)] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = weights / weights.sum(axis=-1, keepdims=True) @ v
        return self._linear(rank, f"{at}.dense", mixed.swapaxes(0, 1).reshape(len(x), -1))

    def _rotated(self, x: Array) -> Array:
        steps = np.arange(0, self.head, 2) / self.head
        angles = np.arange(x.shape[1])[:, None] * self.config["rotary_base"] ** -steps
        a, b = np.split(x, 2, axis=-1)  # rope_gpt_neox: a value and the one half a head later turn together
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(np.float32)

    def _mlp(self, rank: int, at: str, x: Array) -> Array:
        fc = self._linear(rank, f"{at}.fc", x)
        return self._linear(rank, f"{at}.proj", fc / (1 + np.exp(-fc)) * self._linear(rank, f"{at}.gate", x))


def int4_of(packed: Array) -> Array:
    """Integers float32 [outputs, inputs] out of int8 [outputs / 2, inputs]: the even output is the low half."""
    low, high = (packed.astype(np.int8) << 4) >> 4, packed >> 4  # arithmetic: the sign is kept
    return np.stack([low, high], axis=1).reshape(-1, packed.shape[1]).astype(np.float32)
