"""Frames on a real GPU against the host's scaling. Skipped where there is none: no GPU of ours has run it yet."""

from __future__ import annotations

import numpy as np
import pytest

from storm_edge.plugins.gpus import find_gpus
from storm_edge.runtime.answer.on_device import device_frames
from storm_edge.runtime.sessions.cuda import CudaDevice
from storm_edge.runtime.video import read_frames

pytestmark = pytest.mark.skipif(not find_gpus(), reason="this machine has no NVIDIA GPU")


@pytest.mark.parametrize("shape", [(64, 64), (40, 70), (720, 1280), (90, 33)])
def test_scaling_on_the_gpu_is_the_hosts_within_one_level(shape: tuple[int, int]) -> None:
    cupy = pytest.importorskip("cupy")
    device = CudaDevice()
    frames = np.random.default_rng(0).integers(0, 256, (5, *shape, 3), dtype=np.uint8)
    chosen = ((float(i), i) for i in range(len(frames)))
    ours = [device.host(b.frames) for b in device_frames(cupy.asarray(frames), device, chosen, size=64, batch=2)]
    theirs = [b.frames for b in read_frames(frames, size=64, batch=2)]
    assert [len(batch) for batch in ours] == [2, 2, 1]
    for here, there in zip(theirs, ours, strict=True):
        assert np.abs(here.astype(int) - there).max() <= 1
