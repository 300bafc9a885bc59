from __future__ import annotations

import numpy as np
import pytest

from storm_edge.runtime.sessions.device import HOST, Stopwatch, open_device


class Foreign:
    """A tensor of another library in host memory: DLPack is all it has."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__(**options)  # type: ignore[arg-type]

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_the_host_is_always_there() -> None:
    assert open_device("cpu") is HOST


def test_a_tensor_of_another_library_is_seen_in_place() -> None:
    array = np.arange(3, dtype=np.float32)
    seen = HOST.put(Foreign(array))
    array[0] = 7
    assert seen.tolist() == [7, 1, 2]


def test_an_array_passes_through_whatever_its_type() -> None:
    array = np.arange(3, dtype=np.float32)
    assert HOST.put(array) is array
    assert HOST.host(array) is array


def test_writing_broadcasts_and_converts() -> None:
    target = HOST.empty((2, 3), "float32")
    HOST.write(target[:, :2], np.array([[1, 2]], np.float16))
    HOST.write(target[:, 2:], np.array([3], np.int64))
    assert target.tolist() == [[1, 2, 3], [1, 2, 3]]


def test_the_likeliest_is_the_first_of_equals_and_there_is_none_among_what_are_no_numbers() -> None:
    assert HOST.argmax(np.array([1, 5, 5, 0], np.float32)) == 1
    for wrong in (np.nan, np.inf, -np.inf):
        assert HOST.argmax(np.array([1, wrong], np.float32)) is None


def test_a_stopwatch_adds_up_its_blocks_and_leaves_out_those_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([1.0, 3.0, 10.0, 20.0, 21.5])
    monkeypatch.setattr(type(HOST), "mark", lambda self: next(moments))
    watch = Stopwatch(HOST)
    with watch:
        pass
    with pytest.raises(KeyError), watch:
        raise KeyError
    with watch:
        pass
    assert watch.seconds() == 3.5
