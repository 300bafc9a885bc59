import pytest

from storm_edge.runtime.llm.detokenize import BYTE_TO_CHAR, StopFilter, StreamDecoder, token_bytes


def _stream(pieces):
    decoder = StreamDecoder(lambda token: pieces[token])
    return [decoder.push(token) for token in range(len(pieces))] + [decoder.finish()]


def _filtered(stops, pieces):
    stop_filter = StopFilter(stops)
    shown = [stop_filter.push(piece) for piece in pieces]
    return [*shown, stop_filter.finish()], stop_filter.stopped


def test_the_byte_table_is_gpt2s():
    assert len(set(BYTE_TO_CHAR)) == 256
    assert [BYTE_TO_CHAR[byte] for byte in (0, ord(" "), ord("\n"), ord("A"), 0x7F, 0xAD)] == list("ĀĠĊAġŃ")
    assert token_bytes("Ġhi") == b" hi"
    assert token_bytes("日") == "日".encode()


def test_characters_appear_when_their_last_byte_comes():
    bytes_of = "a👍é".encode()
    shown = _stream([bytes_of[i : i + 1] for i in range(len(bytes_of))])
    assert shown == ["a", "", "", "", "👍", "", "é", ""]


def test_bytes_that_are_no_text_become_replacement_characters_and_do_not_block_what_follows():
    assert "".join(_stream([b"\xff", b"ok", b"\xf0\x9f", b"x", b"\xe6\x97"])) == "\ufffdok\ufffdx\ufffd"


def test_a_true_replacement_character_is_kept():
    assert _stream(["\ufffd".encode(), b"a"]) == ["\ufffd", "a", ""]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_stop_string_split_anywhere_never_shows(cut):
    text = "answer<stop>more"
    pieces = [text[: 6 + cut], text[6 + cut :]] if cut < 6 else list(text)
    shown, stopped = _filtered(["<stop>"], pieces)
    assert "".join(shown) == "answer"
    assert stopped


def test_text_is_held_back_only_while_it_may_become_a_stop_string():
    assert _filtered(["<stop>"], ["a<st", "ill", "<", "<sto"]) == (["a", "<still", "", "<", "<sto"], False)


def test_the_stop_string_that_is_complete_first_counts_however_the_text_was_cut():
    assert _filtered(["END", "\n"], ["one\ntwo END"]) == (["one", ""], True)
    for pieces in (["xab", "cd"], ["xabcd"], list("xabcd")):
        shown, stopped = _filtered(["abcd", "bc"], pieces)
        assert ("".join(shown), stopped) == ("xa", True)


def test_a_stop_string_that_begins_with_itself_is_found():
    assert _filtered(["aab"], ["a", "a", "a", "b"]) == (["", "", "a", "", ""], True)


def test_without_stop_strings_nothing_is_held_back():
    assert _filtered([], ["a", "b"]) == (["a", "b", ""], False)
