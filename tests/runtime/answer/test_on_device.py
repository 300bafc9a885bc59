"""Frames that are on the GPU already, on one whose work is done late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from storm_edge.runtime import load
from storm_edge.runtime.answer.on_device import device_frames
from storm_edge.runtime.answer.pipeline import Pipeline
from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.llm.prompt import ChatPrompt
from storm_edge.runtime.sessions.cuda import CudaDevice
from storm_edge.runtime.video import read_frames
from storm_edge.runtime.video.reading import chosen_frames


def clip(count: int, height: int = 40, width: int = 70) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


class Foreign:
    """An array of another package, in a GPU's memory."""

    def __init__(self, array: Any, device: tuple[int, int] = (2, 0), dtype: str = "torch.uint8") -> None:
        self._array, self._device, self.dtype = array, device, dtype
        self.shape = array.shape

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, *, stream: int) -> Any:
        return self._array


@pytest.fixture
def pipeline(machine: Any, engines: Any) -> Pipeline:
    opened, record = engines()
    prompt = ChatPrompt.read(opened.texts(opened.manifest.tokenizer), opened.root / opened.manifest.tokenizer)
    return Pipeline(opened, record, Stages.load(opened, record), prompt)


@pytest.mark.parametrize(
    "how",
    [{}, {"frames": 5}, {"frames": 30}, {"fps": 0.5}, {"frames": 4, "timestamps": [0, 1, 1, 7, 8, 9, 9.5, 20, 21]}],
)
@pytest.mark.parametrize("shape", [(40, 70), (64, 64), (90, 33), (8, 1900)])
def test_the_frames_are_those_of_the_host_within_one_level(
    machine: Any, how: dict[str, Any], shape: tuple[int, int]
) -> None:
    device, frames = CudaDevice(), clip(9, *shape)
    how = {"frames": None, "fps": None, "timestamps": None} | how
    theirs = list(read_frames(frames, size=64, batch=4, **how))
    machine.gpu.to_host.clear()
    chosen = chosen_frames(len(frames), repeats=True, **how)
    ours = list(device_frames(machine.cupy.asarray(frames), device, chosen, size=64, batch=4))
    assert machine.gpu.to_host == []  # they stay there
    assert [batch.timestamps.tolist() for batch in ours] == [batch.timestamps.tolist() for batch in theirs]
    for here, there in zip(theirs, ours, strict=True):
        array: Any = there.frames
        assert isinstance(array, machine.cupy.ndarray)
        assert np.abs(here.frames.astype(int) - device.host(array)).max() <= 1


def test_what_fills_the_frames_in_another_stream_is_waited_for(machine: Any) -> None:
    device, frames = CudaDevice(), clip(3, 64, 64)
    with machine.cupy.cuda.Stream(non_blocking=True):
        late = machine.cupy.asarray(frames)  # still to be copied
    (batch,) = device_frames(late, device, ((float(i), i) for i in range(3)), size=64, batch=8)
    np.testing.assert_array_equal(device.host(batch.frames), frames)


def test_of_frames_that_are_chosen_twice_one_is_enough() -> None:
    how: dict[str, Any] = {"frames": 7, "fps": None, "timestamps": [0, 4, 4, 5]}
    places = [place for _, place in chosen_frames(4, repeats=True, **how)]
    assert places == [0, 0, 0, 0, 0, 2, 3]
    assert [place for _, place in chosen_frames(4, repeats=False, **how)] == [0, 2, 3]


@pytest.mark.parametrize("foreign", [False, True])
def test_a_pipeline_answers_about_them_without_a_copy_to_the_host(
    machine: Any, pipeline: Pipeline, foreign: bool
) -> None:
    frames = clip(8, 64, 64)  # of the model's size: what vision sees is equal
    there = machine.cupy.asarray(frames)
    machine.gpu.to_host.clear()
    video = pipeline.open(Foreign(there) if foreign else there, frames=8)
    assert machine.gpu.to_host == []
    assert video.reused_frames == 0
    np.testing.assert_array_equal(video.timestamps, np.arange(8))
    expected = pipeline.open(frames, frames=8)
    device = pipeline.stages.generator.device
    np.testing.assert_array_equal(device.host(video.rows), device.host(expected.rows))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (lambda there: Foreign(there, (2, 1)), "on GPU 1"),
        (lambda there: Foreign(there, (10, 0)), "no NVIDIA GPU"),
        (lambda there: Foreign(there, dtype="torch.float32"), "float32"),
        (lambda there: there[0], r"uint8 \[64, 64, 3\]"),
        (lambda there: there[:0], r"\[0, 64, 64, 3\]"),
        (lambda there: there.reshape(4, 1, 64 * 64, 3), "at most 2048"),
    ],
)
def test_what_is_no_clip_on_this_gpu_is_refused(machine: Any, pipeline: Pipeline, array: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pipeline.open(array(machine.cupy.asarray(clip(4, 64, 64))), frames=4)


@pytest.mark.parametrize("how", [{"snap": 1}, {"skip_still": 1}])
def test_options_of_frames_on_the_host_are_refused(machine: Any, pipeline: Pipeline, how: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="frames on the host"):
        pipeline.open(machine.cupy.asarray(clip(4)), frames=4, **how)


def test_an_engine_that_sees_on_the_processor_says_what_to_do(bundle: Path, machine: Any) -> None:
    with pytest.raises(UsageError, match="copy them to the host"):
        load(bundle, threads=1).open(machine.cupy.asarray(clip(4)))


def test_arrays_of_other_packages_in_host_memory_are_frames(bundle: Path) -> None:
    torch = pytest.importorskip("torch")
    pipeline, frames = load(bundle, threads=1), clip(4)
    np.testing.assert_array_equal(pipeline.open(torch.from_numpy(frames)).rows, pipeline.open(frames).rows)
    with pytest.raises(UsageError, match="float32"):
        pipeline.open(torch.zeros(4, 8, 8, 3))
    with pytest.raises(UsageError, match="cannot be read"):
        pipeline.open(torch.zeros(4, 8, 8, 3, requires_grad=True))
