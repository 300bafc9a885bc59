"""Frames that are in a GPU's memory already: chosen, scaled and batched there. No GPU of ours has run it yet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.sessions.device import HOST_MEMORY, Device
from storm_edge.runtime.video import FrameBatch
from storm_edge.runtime.video.bicubic import MOST, colours, weights
from storm_edge.runtime.video.listing import check_array

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
    longest = max(source.shape[1:3])
    if longest > _LONG * size:
        raise UsageError(f"the frames have sides of {longest} pixels: scale them to at most {_LONG * size}.")
    with cuda:
        # What fills the frames may still be under way, in a stream of its own.
        cuda.cupy.cuda.runtime.deviceSynchronize()
        array = cuda.put(source)
    return _batches(array, chosen, Scaler(cuda, size), cuda, batch)


def _batches(
    array: Any, chosen: Iterator[tuple[float, int]], scale: Scaler, device: Device, batch: int
) -> Iterator[FrameBatch]:
    times: list[float] = []
    scaled: list[Any] = []
    latest = -1
    for time, place in chosen:
        scaled.append(scaled[-1] if scaled and place == latest else scale(array[place]))
        times.append(time)
        latest = place
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
        self._weights = cache(lambda source, size: device.put(weights(source, size)))  # (size, source)
        self._colours = [device.put(matrix) for matrix in colours()]

    def __call__(self, frame: Any) -> Any:
        """The frame in the model's size."""
        size, (height, width, _) = self._size, frame.shape
        if (height, width) == (size, size):
            return frame
        with self._device:
            return self._scaled(frame, self._weights(height, size), self._weights(width, size))

    def _scaled(self, frame: Any, down: Any, across: Any) -> Any:
        to_yuv, offset, to_rgb, back = self._colours
        planes = (frame.astype("float32") @ to_yuv + offset).transpose(2, 0, 1)  # (3, H, W)
        planes = (planes @ across.transpose(1, 0)).clip(None, MOST)  # (3, H, S)
        planes = down @ planes  # (3, S, S)
        rgb = planes.transpose(1, 2, 0) @ to_rgb + back
        return rgb.round().clip(0, 255).astype("uint8")
