import json

import pytest
from transformers import AutoTokenizer

from storm_edge.export.checkpoint.tokenizer import SPECIAL_TOKENS, check_tokenizer, copy_tokenizer, write_byte_tokenizer
from storm_edge.runtime.errors import CheckpointError, UsageError
from storm_edge.runtime.llm.prompt import VIDEO_TOKENS, ChatPrompt, Message

TEXTS = [
    "What happens after the red circle moves?",
    "  two\n\nlines\t",
    "123 It's Ünïcode, 日本 👍🏽",
    "e\u0301 \x00 \u2028",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    write_byte_tokenizer(path, 4096)
    return path


@pytest.mark.parametrize("size", [264, 265, 300, 4096, 20000])
def test_the_vocabulary_has_exactly_the_size_asked_for(tmp_path, size):
    write_byte_tokenizer(tmp_path, size)
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    ids = [*data["model"]["vocab"].values(), *(token["id"] for token in data["added_tokens"])]
    assert sorted(ids) == list(range(size))
    assert [token["content"] for token in data["added_tokens"]] == list(SPECIAL_TOKENS)
    assert check_tokenizer(tmp_path, size).vocab_size == size


def test_sizes_that_cannot_be_filled_are_refused(tmp_path):
    with pytest.raises(UsageError, match="needs 264 or more"):
        write_byte_tokenizer(tmp_path, 263)
    with pytest.raises(UsageError, match="--tokenizer"):
        write_byte_tokenizer(tmp_path, 1_000_000)


def test_equal_sizes_give_equal_bytes(folder, tmp_path):
    write_byte_tokenizer(tmp_path, 4096)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


@pytest.mark.parametrize("text", TEXTS)
def test_transformers_agrees_on_tokens_and_chat_template(folder, text):
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = ChatPrompt.open(folder)
    assert ours.encode(text) == theirs.encode(text)
    messages = [
        Message("user", text, video=True),
        Message("assistant", "It stops."),
        Message("user", text),
    ]
    content = [{"type": "video"}, {"type": "text", "text": text}]
    expected = theirs.apply_chat_template(
        [
            {"role": "user", "content": content},
            {"role": "assistant", "content": "It stops."},
            {"role": "user", "content": text},
        ],
        add_generation_prompt=True,
    )["input_ids"]
    prompt = ours.render(messages)
    assert [*prompt.before, theirs.convert_tokens_to_ids(VIDEO_TOKENS[0]), *prompt.after] == expected


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_encoding_and_decoding(folder, text):
    prompt = ChatPrompt.open(folder)
    assert prompt.decode(prompt.encode(text)) == text.replace("e\u0301", "\u00e9")  # NFC


def test_merges_make_english_shorter_than_its_bytes(folder):
    text = TEXTS[0]
    assert len(ChatPrompt.open(folder).encode(text)) < 0.6 * len(text)


def test_a_copied_tokenizer_is_checked_against_the_model(folder, tmp_path):
    copy_tokenizer(folder, tmp_path / "copy", 5000)
    assert ChatPrompt.open(tmp_path / "copy").encode(TEXTS[0]) == ChatPrompt.open(folder).encode(TEXTS[0])
    with pytest.raises(CheckpointError, match=r"ids up to 4095, .* ends at 3999"):
        copy_tokenizer(folder, tmp_path / "other", 4000)
    assert not (tmp_path / "other").exists()
    with pytest.raises(CheckpointError, match=r"tokenizer.json is missing"):
        copy_tokenizer(tmp_path, tmp_path / "other", 4000)
