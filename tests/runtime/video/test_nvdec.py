"""Files decoded by NVDEC: its order and memory, on a GPU that is not there, and on a real one where there is one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_pynvvideocodec
import numpy as np
import pytest

from storm_edge.plugins.gpus import find_gpus
from storm_edge.runtime.answer.on_device import decoded_frames
from storm_edge.runtime.answer.source import open_source
from storm_edge.runtime.errors import EngineError, UsageError, VideoError
from storm_edge.runtime.sessions.cuda import CudaDevice
from storm_edge.runtime.sessions.device import HOST

WAYS: list[dict[str, Any]] = [{}, {"frames": 5}, {"frames": 40}, {"fps": 2.5}]
QUIET = "log-level=none"
CASES: dict[str, tuple[str, dict[str, str], str]] = {
    "b-frames": ("libx264", {"g": "30", "bf": "3"}, ".mp4"),
    "open groups": ("libx264", {"x264-params": "open-gop=1:keyint=30:bframes=3:b-adapt=0"}, ".mkv"),
    "start codes": ("libx264", {"g": "30", "bf": "3"}, ".ts"),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": f"keyint=30:bframes=4:{QUIET}"}, ".mp4"),
}


def decoded(path: Path, device: CudaDevice, **how: Any) -> tuple[Any, Any]:
    how = {"frames": None, "fps": None} | how
    batches = list(decoded_frames(path, device, size=32, batch=8, repeats=True, **how))
    times = np.concatenate([batch.timestamps for batch in batches])
    return np.concatenate([device.host(batch.frames) for batch in batches]), times


def check(path: Path, device: CudaDevice, media: Any) -> None:
    for how in WAYS:
        ours, times = decoded(path, device, **how)
        theirs, expected = media.read(path, size=32, **how)
        np.testing.assert_array_equal(times, expected)
        assert np.abs(ours.astype(int) - theirs).max() <= 2


@pytest.fixture
def nvc(machine: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = fake_pynvvideocodec.pynvvideocodec_of(machine.gpu)
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", module)
    return module


@pytest.mark.parametrize("case", CASES)
def test_frames_and_timestamps_are_those_of_the_host(tmp_path: Path, media: Any, nvc: Any, case: str) -> None:
    codec, options, suffix = CASES[case]
    container = "mpegts" if suffix == ".ts" else None
    path = media.write(tmp_path / f"a{suffix}", media.pattern(100), codec, options=options, container=container)
    check(path, CudaDevice(), media)


def test_frames_stay_on_the_gpu(clip: Path, machine: Any, nvc: Any) -> None:
    device = CudaDevice()
    machine.gpu.to_host.clear()
    batches = list(decoded_frames(clip, device, size=32, batch=8, frames=5, fps=None, repeats=True))
    assert machine.gpu.to_host == []
    assert all(isinstance(batch.frames, machine.cupy.ndarray) for batch in batches)


def test_packets_come_in_the_files_order_and_the_end_is_told(tmp_path: Path, media: Any, nvc: Any) -> None:
    path = media.write(tmp_path / "a.mp4", media.pattern(30), options={"bf": "3"})
    _, times = decoded(path, CudaDevice())
    (decoder,) = nvc.decoders
    assert decoder.fed[-1] is None
    fed = decoder.fed[:-1]
    assert fed != sorted(fed)  # B-frames are decoded after what they refer to
    assert len(set(fed)) == len(times) == 30
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("turns", [90, 180, 270])
def test_a_recording_made_sideways_is_turned_upright(tmp_path: Path, media: Any, nvc: Any, turns: int) -> None:
    path = media.write(tmp_path / "a.mp4", media.pattern(10), rotation=turns)
    check(path, CudaDevice(), media)


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix", "message"),
    [
        ("mpeg4", "yuv420p", ".mp4", "is mpeg4, and NVDEC is used for h264"),
        ("libx264", "yuv444p", ".mp4", "is 64 x 48 yuv444p"),
        ("libx264", "yuv420p", ".avi", "does not say when"),
    ],
)
def test_what_it_is_not_used_for_is_refused(
    tmp_path: Path, media: Any, nvc: Any, codec: str, pixels: str, suffix: str, message: str
) -> None:
    path = media.write(tmp_path / f"a{suffix}", media.pattern(5), codec, pixels=pixels)
    with pytest.raises(VideoError, match=f"{message}.*leave out the decoder"):
        decoded(path, CudaDevice())


def test_what_the_decoder_says_is_one_line(clip: Path, nvc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = nvc.CreateDecoder

    def failing(failure: Exception) -> Any:
        def create(**how: Any) -> Any:
            decoder = made(**how)
            decoder.failure = failure
            return decoder

        return create

    monkeypatch.setattr(nvc, "CreateDecoder", failing(nvc.PyNvVCExceptionUnsupported("Codec not\nsupported")))
    with pytest.raises(VideoError, match=r"cannot decode .*\(Codec not supported\): leave out"):
        decoded(clip, CudaDevice())
    monkeypatch.setattr(nvc, "CreateDecoder", failing(nvc.PyNvVCException("CUDA error")))
    with pytest.raises(EngineError, match=r"NVDEC failed .*\(CUDA error\)"):
        decoded(clip, CudaDevice())


def test_without_the_package_or_a_driver_it_says_what_to_install(
    clip: Path, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", None)
    with pytest.raises(EngineError, match=r"storm-edge\[nvdec\]"):
        decoded(clip, CudaDevice())

    def fail(name: str) -> Any:
        raise RuntimeError("Failed to load NVENC library\n\n=== TROUBLESHOOTING STEPS ===")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(EngineError, match=r"no driver \(Failed to load NVENC library\)"):
        decoded(clip, CudaDevice_of(machine, monkeypatch))


def CudaDevice_of(machine: Any, monkeypatch: pytest.MonkeyPatch) -> CudaDevice:
    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", lambda name: machine.cupy)
        return CudaDevice()


@pytest.mark.parametrize(
    ("source", "how", "message"),
    [
        ("clip", {"decoder": "cuvid"}, "give pyav or nvdec"),
        ("clip", {}, "vision is on the processor"),
        ("clip", {"snap": 1}, "frames on the host"),
        ("clip", {"timestamps": [0]}, "its own timestamps"),
        ("array", {}, "decodes a video file"),
    ],
)
def test_what_it_cannot_be_asked_is_refused(clip: Path, source: str, how: dict[str, Any], message: str) -> None:
    given: Any = clip if source == "clip" else np.zeros((2, 8, 8, 3), np.uint8)
    options: dict[str, Any] = dict.fromkeys(("frames", "fps", "timestamps", "snap")) | {"skip_still": 0}
    options |= {"size": 32, "repeats": True, "decoder": "nvdec"} | how
    with pytest.raises(UsageError, match=message):
        list(open_source(given, SimpleNamespace(device=HOST, batch=4), **options).batches)  # type: ignore[arg-type]


@pytest.mark.skipif(not find_gpus(), reason="this machine has no NVIDIA GPU")
@pytest.mark.parametrize("case", CASES)
def test_a_real_gpu_gives_the_hosts_frames_and_timestamps(tmp_path: Path, media: Any, case: str) -> None:
    pytest.importorskip("cupy")
    pytest.importorskip("PyNvVideoCodec")
    codec, options, suffix = CASES[case]
    frames = media.pattern(100, 240, 320)  # NVDEC has a least size
    container = "mpegts" if suffix == ".ts" else None
    check(
        media.write(tmp_path / f"a{suffix}", frames, codec, options=options, container=container), CudaDevice(), media
    )
