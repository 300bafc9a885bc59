from __future__ import annotations

import numpy as np
import pytest

from storm_edge.runtime.answer.clip_tokens import ClipTokens, LongClips
from storm_edge.runtime.sessions.device import HOST


def tokens(frames: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + frames, dtype=np.float32).reshape(-1, 1, 1).repeat(2, axis=1)


@pytest.mark.parametrize("known", [None, 5, 14, 40])
@pytest.mark.parametrize("long", [None, LongClips(above=8, block=4), LongClips(above=100, block=8)])
@pytest.mark.parametrize("batches", [[14], [1, 3, 3, 7], [8, 6]])
def test_what_goes_in_comes_out_in_whole_groups(known: int | None, long: LongClips | None, batches: list[int]) -> None:
    clip = ClipTokens(HOST, 4, known, long)
    for n in batches:
        clip.add(tokens(n, clip.count))
    assert clip.count == 14
    assert clip.last()[0, 0, 0] == 13
    blocks = clip.blocks()
    assert all(len(block) % 4 == 0 for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks)[:, 0, 0], [*range(14), 13, 13])


def test_a_clip_of_known_length_is_one_block_and_others_grow_without_a_copy() -> None:
    known = ClipTokens(HOST, 4, 14)
    known.add(tokens(3))
    known.add(tokens(11, 3))
    assert [len(block) for block in known.blocks()] == [16]
    unknown = ClipTokens(HOST, 4, None, LongClips(above=8, block=8))
    unknown.add(tokens(3))
    first = unknown.blocks()[0]
    unknown.add(tokens(11, 3))
    assert [len(block) for block in unknown.blocks()] == [8, 8]
    assert np.shares_memory(first, unknown.blocks()[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("known", [None, 12])
def test_only_long_clips_are_narrowed_and_alike_whether_their_length_was_known(dtype: str, known: int | None) -> None:
    long = LongClips(above=8, block=4, dtype=dtype)
    short = ClipTokens(HOST, 4, 8, long)
    short.add(tokens(8) + 1 / 3)
    assert {block.dtype.name for block in short.blocks()} == {"float32"}
    clip = ClipTokens(HOST, 4, known, long)
    for n in (1, 7, 4):
        clip.add(tokens(n, clip.count) + 1 / 3)
    expected = (tokens(12) + 1 / 3).astype(dtype)
    assert {block.dtype.name for block in clip.blocks()} == {dtype}
    np.testing.assert_array_equal(np.concatenate(clip.blocks()), expected)


def test_tokens_that_come_narrow_stay_as_they_are() -> None:
    clip = ClipTokens(HOST, 2, 4, LongClips(above=2, block=2, dtype="bfloat16"))
    clip.add(tokens(4).astype(np.float16))
    assert [block.dtype.name for block in clip.blocks()] == ["float16"]


def test_a_clip_without_frames_has_no_tokens() -> None:
    with pytest.raises(ValueError, match="no frames"):
        ClipTokens(HOST, 2).blocks()
