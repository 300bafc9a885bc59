import numpy as np
import pytest

from storm_edge.runtime.llm.newline import Newline
from storm_edge.runtime.llm.splice import SplicedPrompt, flatten_visual, splice
from storm_edge.runtime.sessions.device import HOST


def _embed(ids):
    return np.repeat(np.array(ids, np.float32)[:, None], 2, axis=1)  # (ids, 2)


@pytest.mark.parametrize("newline", [None, Newline(9, 3)])
def test_visual_tokens_become_rows_frame_by_frame_with_a_newline_after_each(newline):
    visual = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    rows = flatten_visual(HOST, _embed, visual, newline)
    if newline is None:
        np.testing.assert_array_equal(rows, visual.reshape(6, 2))
    else:
        np.testing.assert_array_equal(rows.reshape(2, 4, 2)[:, :3], visual[0])
        np.testing.assert_array_equal(rows.reshape(2, 4, 2)[:, 3], [[9, 9], [9, 9]])


def test_visual_tokens_stand_between_the_ids():
    prompt = SplicedPrompt([1, 2], np.full((2, 2), 7, np.float32), [3])
    assert splice(HOST, _embed, prompt)[:, 0].tolist() == [1, 2, 7, 7, 3]


def test_a_position_has_the_same_key_only_where_the_same_is_computed():
    rows = np.zeros((3, 2), np.float32)
    one, again, other = (SplicedPrompt([1, 2], rows, [3], video=video).keys for video in (1, 1, 2))
    assert one == again
    assert not {*one[2:5]} & {*other[2:5]}
    assert max(one[2:5] + other[2:5]) < 0
