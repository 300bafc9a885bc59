"""The demo checkpoint's tokenizer: byte-level BPE learned from the demo's own questions, in Qwen2's form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from storm_edge.demo.questions import ask
from storm_edge.demo.scene import sample_scene
from storm_edge.export.checkpoint.tokenizer import END_OF_TEXT, SPECIAL_TOKENS, TURN_END
from storm_edge.runtime.llm.tokenizer import QWEN2_SPLIT

# Qwen2's turns without what a model this small would only have to read past: no system prompt, no names of roles.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'video' -%}
{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif part['type'] == 'text' -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>' }}
{%- endif -%}
"""
_SCENES = 4000
_MOST = 4096 - len(SPECIAL_TOKENS)


def write_demo_tokenizer(folder: Path) -> int:
    """Write the tokenizer's files to `folder`; returns the number of its entries, all words one entry each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=_MOST, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL_TOKENS])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "chat_template": CHAT_TEMPLATE,
    }
    ends = [tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END_OF_TEXT)]
    for name, data in (
        ("tokenizer_config.json", config),
        ("generation_config.json", {"eos_token_id": ends, "pad_token_id": ends[1]}),
    ):
        (folder / name).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return int(tokenizer.get_vocab_size())


def _corpus() -> Iterator[str]:
    rng = np.random.default_rng(0)
    for _ in range(_SCENES):
        for question in ask(sample_scene(rng, 16, "train"), rng):
            yield question.text
            yield question.answer
