"""config.json of a TensorRT-LLM checkpoint: what its Qwen2 is built from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storm_edge.runtime.config.schema import DType, LanguageConfig

_ALGORITHMS = {"bf16": None, "fp16": None, "fp8": "FP8", "int8": "W8A16", "int4": "W4A16_AWQ"}
# What the package leaves alone where a configuration names nothing (tensorrt_llm/quantization/quantize.py).
_NEVER = ("*lm_head", "*router", "*vocab_embedding", "*position_embedding", "*block_embedding", "*shared_expert_gate")


def checkpoint_config(
    config: LanguageConfig,
    precision: str,
    dtype: DType,
    tp: int,
    *,
    group: int = 128,
    fp8_cache: bool = False,
    excluded: Sequence[str] = (),
) -> dict[str, Any]:
    """The fields that QWenConfig and PretrainedConfig of TensorRT-LLM 1.2 read; `excluded` modules stay plain."""
    return {
        "architecture": "Qwen2ForCausalLM",
        "qwen_type": "qwen2",
        "dtype": dtype,
        "logits_dtype": "float32",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_size": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "hidden_act": "silu",
        "norm_epsilon": config.rms_norm_eps,
        "position_embedding_type": "rope_gpt_neox",
        "rotary_base": config.rope_theta,
        "rotary_scaling": None,
        "rotary_embedding_dim": config.head_dim,
        "attn_bias": True,
        "mlp_bias": False,
        # The table is written out as lm_head too: its rows are shared among ranks, the table's are not.
        "tie_word_embeddings": False,
        "seq_length": config.max_position_embeddings,
        "use_logn_attn": False,
        "disable_weight_only_quant_plugin": False,
        "use_parallel_embedding": False,
        "embedding_sharding_dim": 0,
        "qk_layernorm": False,
        "moe_intermediate_size": 0,
        "moe_shared_expert_intermediate_size": 0,
        "mapping": {"world_size": tp, "tp_size": tp, "pp_size": 1},
        "quantization": {
            "quant_algo": _ALGORITHMS[precision],
            "kv_cache_quant_algo": "FP8" if fp8_cache else None,
            "group_size": group,
            "has_zero_point": False,
            # Our scales are in the norms and weights already.
            "pre_quant_scale": False,
            "exclude_modules": [*_NEVER, *excluded] if excluded else None,
        },
    }
