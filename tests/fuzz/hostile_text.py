"""Attacks by templates and tokenizers: programs and tables that came with the model."""

from __future__ import annotations

import json

from hostile import Scene, attack, seal
from mutate import mutate_json

ASKING = ("run", "eval", "inspect", "verify", "calibrate-llm", "build-run")
CONFIG, TOKENIZER = "tokenizer/tokenizer_config.json", "tokenizer/tokenizer.json"
# Each is a template; WHOLE writes an ordinary prompt, so that what stands before it is reached.
WHOLE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}<|im_start|>assistant\n"
TEMPLATES = (
    "{{ 'a' * 2000000000 }}", "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{{ lipsum(n=100000) }}",
    "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ '%1000000000d' % 1 }}",
    "{{ 'a'.ljust(2000000000) }}", "{{ '{:>2000000000}'.format('a') }}", "{{ 9 ** 9 ** 9 }}", "{{ (1 << 1) }}",
    "{{ range(10**9) | list }}", "{{ 'a' | center(2000000000) }}", "{{ ('a' * 1000000) | replace('', 'a' * 1000) }}",
    "{% include '/etc/passwd' %}", "{% import '/etc/passwd' as x %}", "{{ ''.__class__.__mro__ }}",
    "{{ self._TemplateReference__context }}", "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ raise_exception('\x1b[2J' ~ 'x' * 1000000) }}", "{{ raise_exception('line\\nline') }}", "\x00", "{{",
    "{% if %}",
    "{% for m in messages %}{{ m.content }}{% endfor %}{{ '<|im_start|>' * 1000000 }}", "{{ messages }}" * 50_000,
    "{{ (" + "(" * 5000 + "1" + ")" * 5000 + ") }}", "{% if 1 %}" * 3000, "{{ 'x' | " + "upper | " * 5000 + "lower }}",
    "{% for a in [1]*10000 recursive %}{{ loop([1]*10000) }}{% endfor %}", "{{ dict(a='b') | xmlattr }}",
    "{{ ('a' * 100000) | wordwrap(1) | urlize }}", "{{ 'a' * 50000000 }}" + WHOLE, "{{ [0] * 500000000 }}",
    "{{ joiner.__class__ }}", "{% set x = [] %}{% for i in range(99999) %}{% set _ = x.append(x) %}{% endfor %}{{ x }}",
    "{{ messages | tojson(indent=100000000) }}", "{{ [1,2,3] | batch(1000000000, 0) | list }}",
    "{{ [1] | slice(1000000000) | list }}", "{{ 'a' | indent(1000000000, true) }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}" + WHOLE,
)  # fmt: skip


@attack("templates", ASKING)
def template(scene: Scene) -> str:
    """A template that takes time or memory, tries what it must not, or fails in an odd way."""
    source = TEMPLATES[scene.rng.choice(range(len(TEMPLATES)))]
    data = scene.json(CONFIG)
    how = scene.rng.choice(("config", "listed file", "list"))
    if how == "config":
        data["chat_template"] = source
    elif how == "list":
        data["chat_template"] = [{"name": "default", "template": source}] * scene.rng.choice((1, 10_000))
    else:
        scene.write("tokenizer/chat_template.jinja", source)
    scene.write(CONFIG, json.dumps(data))
    seal(scene.bundle, ("tokenizer/chat_template.jinja",) if how == "listed file" else ())
    return f"template {source[:60]!r}"


@attack("tokenizers", ASKING)
def tokenizer(scene: Scene) -> str:
    """A tokenizer that multiplies text, panics, or has a table that does not fit."""
    data = scene.json(TOKENIZER)
    how = scene.rng.choice(("replace", "pattern", "prepend", "merges", "ids", "added", "empty", "template", "strip",
                            "huge id", "negative", "nested", "many added", "padding", "truncation", "no vocab",
                            "escape", "values", "chain"))  # fmt: skip
    grow = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    if how == "replace":
        data["normalizer"] = {"type": "Sequence", "normalizers": [grow] * 6}
    elif how == "chain":
        data["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a" * 1000}] * 5000}
    elif how == "pattern":
        data["pre_tokenizer"] = {
            "type": "Split",
            "pattern": {"Regex": "(a*)*b|(x+x+)+y"},
            "behavior": "Isolated",
            "invert": False,
        }
    elif how == "prepend":
        data["normalizer"] = {"type": "Prepend", "prepend": "a" * 50_000_000}
    elif how == "merges":
        data["model"]["merges"] = [["a", "nothing"]] * 1000
    elif how == "ids":
        data["model"]["vocab"] = {text: 7 for text in data["model"]["vocab"]}
    elif how in ("huge id", "negative"):
        data["model"]["vocab"]["a"] = 2**32 - 1 if how == "huge id" else -1
    elif how == "added":
        data["added_tokens"] = [data["added_tokens"][0] | {"id": 2**32 - 1, "content": "<|im_end|>"}]
    elif how == "many added":
        first = data["added_tokens"][0]
        data["added_tokens"] += [first | {"id": 600 + i, "content": f"<|{'x' * (i % 90)}{i}|>"} for i in range(100_000)]
    elif how == "empty":
        data["added_tokens"][0]["content"] = scene.rng.choice(("", "\x00", "a", "\ue0000\ue001", "(", "\n" * 10_000))
    elif how == "template":
        pieces = [{"SpecialToken": {"id": "missing", "type_id": 0}}]
        data["post_processor"] = {"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": {}}
    elif how == "strip":
        data["decoder"] = {"type": "Sequence", "decoders": [{"type": "ByteLevel"}] * 10_000}
    elif how == "nested":
        normalizer: dict[str, object] = {"type": "NFC"}
        for _ in range(100):
            normalizer = {"type": "Sequence", "normalizers": [normalizer]}
        data["normalizer"] = normalizer
    elif how == "padding":
        data["padding"] = {"strategy": {"Fixed": 2**40}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                           "pad_type_id": 0, "pad_token": "x"}  # fmt: skip
    elif how == "truncation":
        data["truncation"] = {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 2**40}
    elif how == "no vocab":
        data["model"]["vocab"] = {}
        data["model"]["merges"] = []
    elif how == "escape":
        data["added_tokens"][2]["content"] = "\x1b]0;owned\x07"
    text = json.dumps(data).encode()
    scene.write(TOKENIZER, mutate_json(text, scene.rng) if how == "values" else text)
    seal(scene.bundle)
    return f"tokenizer: {how}"


@attack("tokenizers", ASKING)
def tokenizer_config(scene: Scene) -> str:
    """The small files beside the tokenizer with odd values."""
    name = scene.rng.choice((CONFIG, "tokenizer/generation_config.json"))
    data = scene.json(name)
    how = scene.rng.choice(("eos", "values", "special"))
    if how == "eos":
        data["eos_token_id"] = scene.rng.choice(([2**70], list(range(1_000_000)), [True], -5, "x" * 10**6))
        data["eos_token"] = scene.rng.choice(("x" * 10**6, {"content": "\x1b[2J"}, 7, None))
    elif how == "special":
        data |= {"bos_token": "\x1b[2J" * 1000, "unk_token": {"content": ["a"]}, "added_tokens_decoder": {"x": {}}}
    text = json.dumps(data).encode()
    scene.write(name, mutate_json(text, scene.rng) if how == "values" else text)
    seal(scene.bundle)
    return f"{name}: {how}"
