"""LLaVA-OneVision with random weights, and how transformers and the authors' code save it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from storm_edge.export.checkpoint.tokenizer import write_byte_tokenizer

Model = LlavaOnevisionForConditionalGeneration
SIDE, PATCH, VOCABULARY = 70, 14, 4096  # 5 x 5 patches: an odd side, as the published models' 27
# Turns as in the published processors' template: no system prompt, no line end behind a turn.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>\\n' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\\n' + content['text'] }}"
    "{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ '\\n' + content['text'] }}{% endgeneration %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def random_llava(**text: Any) -> Model:
    """A model of small widths whose every part moves what comes out."""
    config = LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            **text,
        },
    )
    torch.manual_seed(0)
    model = LlavaOnevisionForConditionalGeneration(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5 if "embed" not in name else 0.3)
        elif not name.endswith("weight"):
            parameter.normal_(std=0.3)
    return model


def save_as_transformers(model: Model, root: Path, **processor: Any) -> Path:
    """As transformers does, with a tokenizer, a template and a video processor beside it."""
    model.save_pretrained(root)
    write_byte_tokenizer(root, VOCABULARY)
    (root / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": SIDE, "width": SIDE}}
    (root / "preprocessor_config.json").write_text(json.dumps(half | processor))
    return root


def save_as_authors(model: Model, root: Path, more: Mapping[str, torch.Tensor] | None = None, **config: Any) -> Path:
    """The same model in the layout of LLaVA-NeXT's code: its names, one flat configuration, a text-only template.

    `more` are tensors that models built on it add.
    """
    names = {
        "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
        "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
        "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
        "model.language_model.": "model.",
    }
    tensors = {}
    for name, tensor in model.state_dict().items():
        old = next((old for old in names if name.startswith(old)), "")
        tensors[names.get(old, "") + name.removeprefix(old)] = tensor.clone()
    root.mkdir()
    save_file(tensors | dict(more or {}), root / "model.safetensors", {"format": "pt"})
    text = {k: v for k, v in model.config.text_config.to_dict().items() if k != "model_type"}
    data = text | {
        "model_type": "llava",
        "architectures": ["LlavaQwenForCausalLM"],
        "mm_vision_tower": "somewhere/siglip-small",
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_spatial_pool_mode": "bilinear",
        "mm_vision_select_layer": -2,
    }
    (root / "config.json").write_text(json.dumps(data | config))
    write_byte_tokenizer(root, VOCABULARY)
    return root
