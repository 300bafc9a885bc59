"""Names and shapes of every tensor a checkpoint holds, derived from its configuration."""

from __future__ import annotations

import re

from storm_edge.runtime.config.schema import LanguageConfig, StormConfig

TensorShapes = dict[str, tuple[int, ...]]
NEWLINE = "image_newline"  # beside the temporal encoder's tensors, where the model has one
_SCAN_CONSTANT = re.compile(r"layers\.\d+\.mixer\.(A(_b)?_log|D(_b)?|dt_proj(_b)?\.bias)")


def is_scan_constant(name: str) -> bool:
    """Whether the selective scan reads this tensor of the temporal encoder in fp32, whatever the model's type."""
    return _SCAN_CONSTANT.fullmatch(name) is not None


def _layer_norm(name: str, width: int) -> TensorShapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> TensorShapes:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def vision_shapes(config: StormConfig) -> TensorShapes:
    """SigLIP's tensors that the model reads, Hugging Face names without the `vision_model.` prefix."""
    vision = config.vision
    width = vision.hidden_size
    shapes: TensorShapes = {
        "embeddings.patch_embedding.weight": (width, 3, vision.patch_size, vision.patch_size),
        "embeddings.patch_embedding.bias": (width,),
        "embeddings.position_embedding.weight": (vision.grid**2, width),
    }
    for i in range(vision.layers_run):
        block = f"encoder.layers.{i}"
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= _layer_norm(f"{block}.{norm}", width)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{block}.self_attn.{projection}", width, width)
        shapes |= _linear(f"{block}.mlp.fc1", width, vision.intermediate_size)
        shapes |= _linear(f"{block}.mlp.fc2", vision.intermediate_size, width)
    return shapes


def temporal_shapes(config: StormConfig) -> TensorShapes:
    """The projector's and Mamba layers' tensors, mamba_ssm names (`*_b` and `A_b_log` backward), and the line end's."""
    width, channels, temporal = config.llm.hidden_size, config.d_inner, config.temporal
    features, *outputs = config.projector_widths
    shapes: TensorShapes = {}
    for name, inputs, out in zip(("linear", "linear_2", "linear_3"), config.projector_widths, outputs, strict=False):
        shapes |= _linear(f"projector.{name}", inputs, out)
    if temporal.projector == "mlp3x_gelu":
        shapes |= _layer_norm("projector.norm_2", outputs[0])
    if config.reduction.image_newline != "none":
        shapes[NEWLINE] = (width,)
    if temporal.projector_norm:
        shapes |= _layer_norm("projector.norm", features)
    for i in range(temporal.num_layers):
        mixer = f"layers.{i}.mixer"
        norm = _layer_norm(f"layers.{i}.norm", width)
        shapes |= norm if temporal.norm == "layer" else {f"layers.{i}.norm.weight": (width,)}
        shapes |= _linear(f"{mixer}.in_proj", width, 2 * channels, bias=False)
        shapes |= _linear(f"{mixer}.out_proj", channels, width, bias=False)
        for suffix in ("", "_b") if temporal.bidirectional else ("",):
            shapes[f"{mixer}.conv1d{suffix}.weight"] = (channels, 1, temporal.d_conv)
            shapes[f"{mixer}.conv1d{suffix}.bias"] = (channels,)
            shapes |= _linear(f"{mixer}.x_proj{suffix}", channels, config.dt_rank + 2 * temporal.d_state, bias=False)
            shapes |= _linear(f"{mixer}.dt_proj{suffix}", config.dt_rank, channels)
            shapes[f"{mixer}.A{suffix}_log"] = (channels, temporal.d_state)
            shapes[f"{mixer}.D{suffix}"] = (channels,)
    return shapes


def language_shapes(llm: LanguageConfig) -> TensorShapes:
    """Qwen2's or Qwen3's tensors, Hugging Face names."""
    width, heads, kv = llm.hidden_size, llm.heads_width, llm.num_key_value_heads * llm.head_dim
    shapes: TensorShapes = {"model.embed_tokens.weight": (llm.vocab_size, width), "model.norm.weight": (width,)}
    if not llm.tie_word_embeddings:
        shapes["lm_head.weight"] = (llm.vocab_size, width)
    for i in range(llm.num_hidden_layers):
        layer = f"model.layers.{i}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{norm}.weight"] = (width,)
        for projection, outputs in (("q_proj", heads), ("k_proj", kv), ("v_proj", kv)):
            shapes |= _linear(f"{layer}.self_attn.{projection}", width, outputs, bias=not llm.head_norms)
        for norm in ("q_norm", "k_norm") if llm.head_norms else ():
            shapes[f"{layer}.self_attn.{norm}.weight"] = (llm.head_dim,)
        shapes |= _linear(f"{layer}.self_attn.o_proj", heads, width, bias=False)
        for projection in ("gate_proj", "up_proj"):
            shapes |= _linear(f"{layer}.mlp.{projection}", width, llm.intermediate_size, bias=False)
        shapes |= _linear(f"{layer}.mlp.down_proj", llm.intermediate_size, width, bias=False)
    return shapes
