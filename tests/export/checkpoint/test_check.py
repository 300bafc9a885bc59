import pytest

from storm_edge.export.checkpoint.check import check_tensors
from storm_edge.runtime.errors import CheckpointError

EXPECTED = {"a.weight": (2, 3), "a.bias": (2,), "b.weight": (4,)}


def test_equal_names_and_shapes_pass():
    check_tensors({name: list(shape) for name, shape in EXPECTED.items()}, EXPECTED, "folder")


def test_every_difference_is_named_in_one_line():
    found = {"a.weight": (3, 2), "c.weight": (1,), "d.weight": (1,)}
    with pytest.raises(CheckpointError) as caught:
        check_tensors(found, EXPECTED, "folder")
    message = str(caught.value)
    assert message.startswith(
        "folder does not match its configuration: missing a.bias, b.weight; unexpected c.weight, d.weight;"
        " misshapen: a.weight is [3, 2] instead of [2, 3]."
    )
    assert "\n" not in message


def test_known_buffers_and_ignored_patterns_may_be_there():
    found = {**EXPECTED, "layers.0.rotary_emb.inv_freq": (8,), "embeddings.position_ids": (1, 4), "head.weight": (1,)}
    check_tensors(found, EXPECTED, "folder", ignored=["head.*"])
    with pytest.raises(CheckpointError, match=r"unexpected head.weight"):
        check_tensors(found, EXPECTED, "folder")
