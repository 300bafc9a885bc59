"""How TensorRT-LLM shares Qwen2 among the ranks of tensor parallelism.

A layer's queries, keys and values, both matrices in front of the gate, and the vocabulary are shared by outputs; what
follows them (dense, proj) by inputs, and its products are added up. Norms and the embedding table are on every rank.
The rules are those of tensorrt_llm/models/qwen/convert.py and models/convert_utils.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from storm_edge.runtime.config.schema import LanguageConfig
from storm_edge.runtime.errors import TargetError


@dataclass(frozen=True)
class Part:
    """A rank's part of a weight of the decoder's graph, which is stored [inputs, outputs]."""

    name: str
    inputs: range
    outputs: range

    @property
    def shape(self) -> tuple[int, int]:
        """Inputs and outputs of the part."""
        return len(self.inputs), len(self.outputs)


@dataclass(frozen=True)
class Linear:
    """One linear layer as TensorRT-LLM has it: parts that read the same `input`, stacked by outputs.

    `scaled_with` are the decoder's weights that share one fp8 scale with it: the compiler fuses what reads the same.
    """

    name: str
    parts: tuple[Part, ...]
    input: str
    scaled_with: tuple[str, ...]
    bias: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs, the order in which it is written."""
        return sum(part.shape[1] for part in self.parts), self.parts[0].shape[0]


def check_architecture(config: LanguageConfig, runner: str) -> None:
    """Raise TargetError for a language model whose heads have norms, which neither folder here is written for."""
    if config.head_norms:
        raise TargetError(
            f"the language model is a Qwen3, whose bundle {runner} is not given yet: build for a target or --llm that"
            " runs it in ONNX Runtime or TensorRT, or give the Hugging Face folder itself to it."
        )


def check_tensor_parallel(config: LanguageConfig, tp: int, group: int | None = None) -> None:
    """Raise TargetError, with the arithmetic, where `tp` ranks cannot share the model; `group` is int4's block."""
    wrong = _obstacle(config, tp, group)
    if wrong is None:
        return
    legal = [n for n in (1, 2, 4, 8) if _obstacle(config, n, group) is None]
    if not legal:
        raise TargetError(f"no number of GPUs can hold this language model: {wrong}: choose another --llm-precision.")
    raise TargetError(f"--tp {tp}: {wrong}: choose {' or '.join(map(str, legal))}.")


def _obstacle(config: LanguageConfig, tp: int, group: int | None) -> str | None:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    for what, number in (("attention heads", heads), ("channels of the feed-forward part", config.intermediate_size)):
        if number % tp:
            return f"{number} {what} cannot be shared among {tp} ranks ({number} / {tp} = {number / tp:g})"
    if kv_heads % tp and tp % kv_heads:
        return f"{kv_heads} key-value heads can neither be shared among {tp} ranks nor be repeated to {tp}"
    if group is not None:
        widths = {config.hidden_size, config.hidden_size // tp, config.intermediate_size // tp}
        for width in sorted(widths):
            if width % group:
                return f"a rank's {width} inputs of a layer are no multiple of {group}, int4's block"
    return None


def linears(config: LanguageConfig, layer: int, tp: int, rank: int) -> list[Linear]:
    """The linear layers of a decoder layer, as `rank` has them; the vocabulary's is not among them."""
    source, target = f"model.layers.{layer}", f"transformer.layers.{layer}"
    width, head, wide = config.hidden_size, config.head_dim, config.intermediate_size
    everything = range(width)
    queries = _share(config.num_attention_heads * head, tp, rank)
    kept = max(1, config.num_key_value_heads // tp) * head
    first = rank * config.num_key_value_heads // tp * head  # a head that is repeated is that of several ranks
    keys = range(first, first + kept)
    middle = _share(wide, tp, rank)
    attention = [f"{source}.self_attn.{name}_proj.weight" for name in "qkv"]
    gated = [f"{source}.mlp.{name}_proj.weight" for name in ("gate", "up")]
    dense, down = f"{source}.self_attn.o_proj.weight", f"{source}.mlp.down_proj.weight"
    qkv = tuple(Part(name, everything, s) for name, s in zip(attention, (queries, keys, keys), strict=True))
    before, after = f"{source}.input_layernorm", f"{source}.post_attention_layernorm"
    # Its multilayer perceptron is proj(silu(fc(x)) * gate(x)), so that Hugging Face's gate is its fc.
    fc, gate = (Part(name, everything, middle) for name in gated)
    return [
        Linear(f"{target}.attention.qkv", qkv, before, tuple(attention), bias=True),
        Linear(
            f"{target}.attention.dense", (Part(dense, queries, everything),), f"{source}.self_attn.merged", (dense,)
        ),
        Linear(f"{target}.mlp.fc", (fc,), after, tuple(gated)),
        Linear(f"{target}.mlp.gate", (gate,), after, tuple(gated)),
        Linear(f"{target}.mlp.proj", (Part(down, middle, everything),), f"{source}.mlp.gated", (down,)),
    ]


def vocabulary_rows(config: LanguageConfig, tp: int, rank: int) -> range:
    """The rows of lm_head that a rank has; those from `vocab_size` upward are zeros, so that all have equally many."""
    return _share(-(-config.vocab_size // tp) * tp, tp, rank)


def _share(number: int, tp: int, rank: int) -> range:
    return range(rank * (number // tp), (rank + 1) * (number // tp))
