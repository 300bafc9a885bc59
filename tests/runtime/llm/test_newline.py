import numpy as np
import pytest

from storm_edge.runtime.config.schema import ReductionConfig, StormConfig
from storm_edge.runtime.llm.newline import Newline
from storm_edge.runtime.llm.splice import flatten_visual
from storm_edge.runtime.sessions.device import HOST


def _config(config, **reduction):
    return config.model_copy(update={"reduction": ReductionConfig(temporal_pool=1, **reduction)})


@pytest.mark.parametrize(
    ("reduction", "every", "rows"),
    [
        ({"newline_token": True}, 16, 2 * 17),
        ({"image_newline": "frame"}, 16, 2 * 17),
        ({"image_newline": "row"}, 4, 2 * 4 * 5),
        ({"image_newline": "end"}, 0, 2 * 16 + 1),
    ],
)
def test_line_ends_stand_where_the_configuration_says_and_are_counted(config: StormConfig, reduction, every, rows):
    changed = _config(config, **reduction)
    newline = Newline.of(changed, 9)
    assert newline == Newline(9, every)
    visual = np.zeros((1, 2, 16, 3), np.float32)
    flat = flatten_visual(HOST, lambda ids: np.full((len(ids), 3), ids[0], np.float32), visual, newline)
    assert len(flat) == rows == changed.visual_tokens(2)
    period = (every or 32) + 1
    np.testing.assert_array_equal(np.flatnonzero(flat[:, 0]), np.arange(period - 1, rows, period))
    assert set(flat[flat != 0]) == {9}


def test_a_model_without_line_ends_has_none(config: StormConfig):
    assert Newline.of(config, None) is None


def test_a_model_has_one_kind_of_line_end():
    with pytest.raises(ValueError, match="two kinds of line end"):
        ReductionConfig(newline_token=True, image_newline="row")
