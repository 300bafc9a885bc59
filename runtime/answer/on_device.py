"""Frames that are in a GPU's memory, or decoded into it: chosen and scaled there. No GPU of ours has run it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.sessions.device import HOST_MEMORY, Device
from storm_edge.runtime.video import FrameBatch
from storm_edge.runtime.video.bicubic import MOST, colours, weights
from storm_edge.runtime.video.listing import check_array
from storm_edge.runtime.video.nvdec import Look, NvdecFile, Picture
from storm_edge.runtime.video.reading import chosen_shots
from storm_edge.runtime.video.resizing import upright
from storm_edge.runtime.video.sampling import Shot

Chosen = TypeVar("Chosen")

_CUDA_MEMORY = (2, 13)  # DLPack's kinds: a GPU's own memory, and managed memory
# Beyond so many times shorter, swscale goes another way than one filter.
_LONG = 32


def as_source(source: Any) -> Any:
    """What `read_frames` takes, of anything with DLPack's protocol that is in host memory; raises UsageError."""
    if isinstance(source, str | os.PathLike | np.ndarray) or not hasattr(source, "__dlpack_device__"):
        return source
    kind, number = source.__dlpack_device__()
    if kind in HOST_MEMORY:
        try:
            return np.from_dlpack(source)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            words = " ".join(str(error).split())
            raise UsageError(f"the frames cannot be read ({words}): give a plain uint8 array of them.") from error
    if kind not in _CUDA_MEMORY or number != 0:
        where = f"on GPU {number}" if kind in _CUDA_MEMORY else "on a device that is no NVIDIA GPU"
        raise UsageError(f"the frames are {where}, and pipelines use GPU 0: copy them there, or to the host.")
    check_array(str(source.dtype).rpartition(".")[2], source.shape)  # PyTorch says torch.uint8
    return source


def on_gpu(source: Any) -> bool:
    """Whether what `as_source` gave is an array in a GPU's memory."""
    return not isinstance(source, np.ndarray) and hasattr(source, "__dlpack_device__")


def device_frames(
    source: Any,
    device: Device,
    chosen: Iterator[tuple[float, int]],
    *,
    size: int,
    batch: int,
) -> Iterator[FrameBatch]:
    """The chosen frames of a uint8 array [T, H, W, 3] on the GPU, in batches that stay there.

    `chosen` are their times and places, see `chosen_frames`.

    Pixels differ by at most 1 of 255 from those that the host's scaling makes. Raises UsageError, at once.
    """
    if device.memory != "cuda":
        raise UsageError(
            "the frames are in a GPU's memory, and this engine looks at them on the processor: copy them to the host"
            " (`cupy.asnumpy(frames)`, `frames.cpu()`)."
        )
    cuda: Any = device  # the one device with that memory
    _check_sides(source.shape[1:3], size)
    with cuda:
        # What fills the frames may still be under way, in a stream of its own.
        cuda.cupy.cuda.runtime.deviceSynchronize()
        array = cuda.put(source)
    scale = Scaler(cuda, size)
    return _batches(chosen, lambda place: scale(array[place]), cuda, batch)


def decoded_frames(
    path: Path,
    device: Device,
    *,
    size: int,
    batch: int,
    frames: int | None,
    fps: float | None,
    repeats: bool,
) -> Iterator[FrameBatch]:
    """The frames of a video file that `read_frames` takes, decoded by NVDEC and scaled on the GPU, where they stay.

    Pixels differ by at most 2 of 255 from those that the host makes, if the file is undamaged; timestamps are equal.
    Raises UsageError where the engine looks at frames on the processor; VideoError and EngineError, see `NvdecFile`.
    """
    if device.memory != "cuda":
        raise UsageError(
            "NVDEC decodes into a GPU's memory, and this engine's vision is on the processor: leave it out."
        )
    cuda: Any = device

    def keep(surface: Any) -> Any:
        with cuda:
            return cuda.put(surface).copy()

    video = NvdecFile(path, cuda.stream, keep)
    with video:
        shots: Iterator[Shot[Any]] = chosen_shots(video, frames=frames, fps=fps, repeats=repeats)
        chosen = ((shot.time, shot.frame) for shot in shots)
        yield from _batches(chosen, PictureScaler(cuda, size, video.look), cuda, batch)


def _check_sides(sides: tuple[int, ...], size: int) -> None:
    if max(sides) > _LONG * size:
        raise UsageError(f"the frames have sides of {max(sides)} pixels: scale them to at most {_LONG * size}.")


def _batches(
    chosen: Iterator[tuple[float, Chosen]], scale: Callable[[Chosen], Any], device: Device, batch: int
) -> Iterator[FrameBatch]:
    times: list[float] = []
    scaled: list[Any] = []
    latest: Chosen | None = None
    for time, frame in chosen:
        scaled.append(scaled[-1] if scaled and frame == latest else scale(frame))
        times.append(time)
        latest = frame
        if len(times) == batch:
            yield _joined(device, scaled, times)
            times, scaled = [], []
    if times:
        yield _joined(device, scaled, times)


def _joined(device: Device, scaled: list[Any], times: list[float]) -> FrameBatch:
    joined = device.concatenate([device.reshape(frame, (1, *frame.shape)) for frame in scaled])  # (n, S, S, 3)
    return FrameBatch(cast("npt.NDArray[np.uint8]", joined), np.array(times))


class Scaler:
    """Makes uint8 [size, size, 3] of uint8 [H, W, 3], both on the GPU: swscale's bicubic as products of matrices."""

    def __init__(self, device: Any, size: int) -> None:
        self._device, self._size = device, size
        self._weights = cache(
            lambda source, size, left=False: device.put(weights(source, size, left))
        )  # (size, source)
        self._colours = [device.put(matrix) for matrix in colours()]

    def __call__(self, frame: Any) -> Any:
        """The frame in the model's size."""
        size, (height, width, _) = self._size, frame.shape
        if (height, width) == (size, size):
            return frame
        to_yuv, offset, to_rgb, back = self._colours
        with self._device:
            planes = (frame.astype("float32") @ to_yuv + offset).transpose(2, 0, 1)  # (3, H, W)
            return _levels(self._fitted(planes).transpose(1, 2, 0) @ to_rgb + back)

    def _fitted(self, planes: Any, left: bool = False) -> Any:
        """fp32 (planes, H, W) -> (planes, S, S)."""
        down = self._weights(planes.shape[1], self._size)
        across = self._weights(planes.shape[2], self._size, left)
        return down @ (planes @ across.transpose(1, 0)).clip(None, MOST)


class PictureScaler(Scaler):
    """The same of decoded pictures: their planes are scaled, then made RGB, then turned upright."""

    def __init__(self, device: Any, size: int, look: Look) -> None:
        super().__init__(device, size)
        self._matrix, self._offset, self._display = device.put(look.matrix), device.put(look.offset), look.display

    def __call__(self, picture: Picture) -> Any:
        """The picture in the model's size."""
        rows, width = picture.planes.shape
        height = rows * 2 // 3
        _check_sides((height, width), self._size)
        with self._device:
            luma = picture.planes[:height].reshape(1, height, width)
            chroma = picture.planes[height:].reshape(height // 2, width // 2, 2).transpose(2, 0, 1)
            scaled = (self._fitted(luma.astype("float32")), self._fitted(chroma.astype("float32"), left=True))
            planes = self._device.concatenate(scaled)
            rgb = planes.transpose(1, 2, 0) @ self._matrix + self._offset  # (S, S, 3)
            return upright(_levels(rgb), self._display)


def _levels(rgb: Any) -> Any:
    return rgb.round().clip(0, 255).astype("uint8")
