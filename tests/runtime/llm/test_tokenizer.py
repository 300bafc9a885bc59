"""Tokenizers that were made to hurt. Each would take minutes or gigabytes, or end the process, if it were taken."""

import json
import time

import pytest
from tokenizers import Tokenizer

from storm_edge.export.checkpoint.tokenizer import write_byte_tokenizer
from storm_edge.runtime.errors import BundleError, UsageError
from storm_edge.runtime.llm.prompt import LARGEST_PROMPT, ChatPrompt, Message
from storm_edge.runtime.llm.tokenizer import QWEN2_SPLIT, ByteLevelTokenizer, TokenizerFault

REPEATED = """{% for m in messages %}{% for p in m.content %}{% if p.type == 'video' %}<|video_pad|>
{%- else %}{{ p.text * 20000 }}{% endif %}{% endfor %}{% endfor %}"""


@pytest.fixture
def folder(tmp_path):
    write_byte_tokenizer(tmp_path, 1000)
    return tmp_path


@pytest.fixture
def data(folder):
    return json.loads((folder / "tokenizer.json").read_text())


def _split(regex, **step):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False} | step


def _steps(*steps):
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)}}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (_steps(_split("(a+)+$"), BYTES), "by another rule"),
        (_steps(_split(QWEN2_SPLIT + "|(x|xx)+y"), BYTES), "by another rule"),
        (_steps(_split(QWEN2_SPLIT, behavior="Removed"), BYTES), "by another rule"),
        (_steps(*[_split(QWEN2_SPLIT)] * 1000, BYTES), "in other steps"),
        (_steps(), "in other steps"),
        ({"pre_tokenizer": None}, "by another rule"),
        ({"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 10**6}}, "other than NFC"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}] * 10000}}, "other than NFC"),
        ({"added_tokens": [{"content": f"<{i}>", "id": i} for i in range(5000)]}, "adds 5000 tokens"),
        ({"added_tokens": [{"content": "x" * 10**6, "id": 1}]}, "an added token without a text of 1 to 64"),
        ({"added_tokens": [{"content": "", "id": 1}]}, "an added token"),
        ({"added_tokens": [{"content": "x", "id": 2**32 - 1}]}, "an added token"),
        ({"model": {"vocab": {"a": 2**32 - 1}}}, "ids are whole numbers from 0 to 4194303"),
        ({"model": {"vocab": {"a": 1.5}}}, "ids are whole numbers"),
        ({"model": {"vocab": {"a": True}}}, "ids are whole numbers"),
        # The tokenizers library panics here, which is no Exception.
        ({"model": {"continuing_subword_prefix": "####"}}, "by a prefix or suffix"),
        ({"model": {"type": "Unigram"}}, "is no byte pair encoding"),
        ({"model": {"merges": "x"}}, "merges that are no list"),
        ({"model": {"merges": [["a", "nothing"]]}}, "makes the tokenizers library fail"),
        ({"model": {"merges": ["a"]}}, "makes the tokenizers library fail"),
        ({"model": {"merges": ["a b c"]}}, "makes the tokenizers library fail"),
        ({"model": {"merges": [["a", 1]]}}, "makes the tokenizers library fail"),
        ({"model": {"merges": [{"a": "b", "c": "d"}]}}, "merges that are no pairs"),
        ({"model": {"merges": ["a b", ["a", "b"]]}}, "merges that are no pairs"),
        ({"model": {"merges": [["a", "\ud800"]]}}, "makes the tokenizers library fail"),
        ({"model": {"vocab": {}, "merges": []}}, "has no vocabulary"),
    ],
)
def test_what_the_runtime_would_not_use_is_refused(data, folder, changes, words):
    if "model" in changes:
        changes = {"model": data["model"] | changes["model"]}
    (folder / "tokenizer.json").write_text(json.dumps(data | changes))
    begun = time.process_time()
    with pytest.raises(BundleError, match=words) as caught:
        ChatPrompt.open(folder)
    assert time.process_time() - begun < 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b" " * (32 * 2**20 + 1), "has more than 32 MiB"),
        (b"[" + b"[]," * 10**7 + b"[]]", "has more than 2000000 values"),
        (b"[" * 10**6, "cannot be read as JSON"),
        (b'{"a":' * 10**6, "cannot be read as JSON"),
    ],
)
def test_a_tokenizer_file_that_is_too_large_or_deep_is_refused(folder, content, words):
    (folder / "tokenizer.json").write_bytes(content)
    begun = time.process_time()
    with pytest.raises(BundleError, match=words):
        ChatPrompt.open(folder)
    assert time.process_time() - begun < 2


def test_a_configuration_of_many_megabytes_is_refused(folder):
    (folder / "tokenizer_config.json").write_bytes(b" " * (4 * 2**20 + 1))
    with pytest.raises(BundleError, match=r"tokenizer_config\.json has more than 4 MiB"):
        ChatPrompt.open(folder)


@pytest.mark.parametrize("text", ["a", " ", "!", "a1", "\n", "\u1100\u1161", "a\u0301\u0316", "\U0001f44d"])
def test_the_longest_prompt_is_split_in_time_whatever_is_in_it(folder, text):
    chat = ChatPrompt.open(folder)
    begun = time.process_time()
    assert chat.encode(text * (LARGEST_PROMPT // len(text.encode())))
    assert time.process_time() - begun < 6


def test_a_longer_prompt_is_refused_before_it_is_split(folder):
    chat = ChatPrompt.open(folder)
    with pytest.raises(UsageError, match="has 1048577 bytes, more than any"):
        chat.encode("a" * (LARGEST_PROMPT + 1))
    messages = [Message("user", "a" * 700_000, video=True), Message("user", "b" * 700_000)]
    with pytest.raises(UsageError, match="more than any language model here reads"):
        chat.render(messages)


def test_a_template_that_repeats_what_is_asked_cannot_make_it_long(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": REPEATED}))
    chat = ChatPrompt.open(folder)
    assert chat.render([Message("user", "why?", video=True)])
    with pytest.raises(UsageError, match="more than any language model here reads"):
        chat.render([Message("user", "why? " * 1000, video=True)])


def test_many_added_tokens_that_begin_alike_are_told_apart_in_time(folder, data):
    alike = [{"content": "<" * 60 + chr(200 + i), "id": i} for i in range(4000)]
    (folder / "tokenizer.json").write_text(json.dumps(data | {"added_tokens": data["added_tokens"] + alike}))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = REPEATED.replace(" * 20000", "") + "<" * 110_000 + "".join(chr(200 + i) for i in range(2000))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    begun = time.process_time()
    assert ChatPrompt.open(folder).render([Message("user", "why?", video=True)])
    assert time.process_time() - begun < 4


def test_a_panic_of_the_library_is_a_fault_of_the_tokenizer(data):
    from storm_edge.runtime.llm.tokenizer import _no_panic

    data["model"]["continuing_subword_prefix"] = "####"
    with pytest.raises(TokenizerFault, match="makes the tokenizers library fail"), _no_panic():
        Tokenizer.from_str(json.dumps(data))
    with pytest.raises(KeyboardInterrupt), _no_panic():
        raise KeyboardInterrupt


def test_three_digits_together_are_split_as_llama_does(data):
    data["pre_tokenizer"] = _steps(_split(QWEN2_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")), BYTES)["pre_tokenizer"]
    assert ByteLevelTokenizer(data).encode("12345") == list(b"12345")


@pytest.mark.parametrize("form", [list, " ".join])
@pytest.mark.parametrize("ignore_merges", [False, True])
def test_text_is_cut_as_the_library_cuts_it_that_reads_the_file_itself(data, form, ignore_merges):
    data["model"] |= {"merges": [form(pair) for pair in data["model"]["merges"]], "ignore_merges": ignore_merges}
    ours, library = ByteLevelTokenizer(data), Tokenizer.from_str(json.dumps(data | {"added_tokens": []}))
    text = "The theatre's 12 bananas cost 3.50, e\u0301t\u00e9!\n\n  and " * 20
    assert ours.encode(text) == library.encode(text, add_special_tokens=False).ids
    assert len(ours.encode(text)) < len(text)  # some were merged


def test_a_tokenizer_as_large_as_qwen2s_takes_little_longer_than_the_library_alone(tmp_path):
    write_byte_tokenizer(tmp_path, 151_936)
    alone, ours = [], []
    for _ in range(4):
        begun = time.process_time()
        Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        between = time.process_time()
        ChatPrompt.open(tmp_path)
        alone.append(between - begun)
        ours.append(time.process_time() - between)
    assert min(ours) < 1.8 * min(alone)  # 2.5 where the entries were written as JSON and read again
