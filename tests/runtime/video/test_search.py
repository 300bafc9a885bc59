"""Sparse sampling jumps from keyframe to keyframe and gives what a decode from first to last gives."""

import numpy as np
import pytest

from storm_edge.runtime.video import container as container_module

OPEN_GROUPS = {"x264-params": "open-gop=1:keyint=30:bframes=3:b-adapt=0"}
QUIET = "log-level=none"
CASES = {
    "b-frames": ("libx264", {"g": "30", "bf": "3"}),
    "open groups": ("libx264", OPEN_GROUPS),
    "intra refresh": ("libx264", {"x264-params": "intra-refresh=1:keyint=40:bframes=0"}),
    "keyframes at cuts only": ("libx264", {"g": "1000", "bf": "2"}),
    "mpeg-4": ("mpeg4", {"g": "20", "bf": "2"}),
    "pyramid": ("libx264", {"g": "60", "bf": "8", "x264-params": "b-pyramid=strict:b-adapt=0"}),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": f"keyint=30:bframes=4:{QUIET}"}),
    "hevc in open groups": ("libx265", {"preset": "ultrafast", "x265-params": f"keyint=30:open-gop=1:{QUIET}"}),
    "hevc in layers": ("libx265", {"preset": "ultrafast", "x265-params": f"keyint=60:temporal-layers=3:{QUIET}"}),
    "av1": ("libsvtav1", {"g": "30", "preset": "12"}),
    "vp9": ("libvpx-vp9", {"g": "30", "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "16"}),
}


@pytest.fixture
def decoded(monkeypatch):
    """How many frames were decoded so far, in a list of one."""
    count = [0]
    decode = container_module.VideoFile._decode

    def counting(self):
        for shot in decode(self):
            count[0] += 1
            yield shot

    monkeypatch.setattr(container_module.VideoFile, "_decode", counting)
    return count


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("varying", [False, True], ids=["constant", "varying"])
@pytest.mark.parametrize("case", CASES)
def test_sampling_equals_choosing_from_a_full_decode(tmp_path, media, case, varying, suffix):
    codec, options = CASES[case]
    if suffix == ".ts" and codec not in ("libx264", "libx265"):
        pytest.skip("no transport stream carries it")
    steps = np.random.default_rng(5).integers(20, 400, 300) if varying else np.full(300, 100)
    path = media.write(
        tmp_path / f"a{suffix}",
        media.pattern(300),
        codec,
        options=options,
        ticks=(250 + np.cumsum(steps)).tolist(),
        container="mpegts" if suffix == ".ts" else None,
    )
    every, times = media.read(path, size=16)
    for arguments in ({"frames": 2}, {"frames": 5}, {"frames": 64}, {"fps": 0.5}, {"fps": 2.5}):
        frames, shown = media.read(path, size=16, **arguments)
        expected, expected_times = media.read(every, size=16, timestamps=times, **arguments)
        np.testing.assert_array_equal(shown, expected_times)
        np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sparse_sampling_decodes_a_fraction(tmp_path, clip, media, decoded, suffix):
    path = media.rewrap(clip, tmp_path / f"a{suffix}") if suffix != ".mp4" else clip
    media.read(path, size=8, frames=3)
    assert decoded[0] < 60  # of 300
    decoded[0] = 0
    media.read(path, size=8, fps=0.5)
    assert decoded[0] < 100


def test_dense_sampling_decodes_nothing_twice_but_the_end(clip, media, decoded):
    media.read(clip, size=8, frames=300)
    assert decoded[0] <= 300 + 1 + 30  # the first frame and the last group, to find the span


def test_a_keyframe_that_is_none_is_noticed(clip, media, monkeypatch):
    expected = media.read(clip, size=8, frames=5)
    keyframe = container_module.VideoFile._keyframe

    def lying(self, target, **options):
        found = keyframe(self, target, **options)
        return found and found._replace(target=found.target + round(2 / self._tick))  # two seconds late

    monkeypatch.setattr(container_module.VideoFile, "_last_group", lambda self: None)
    monkeypatch.setattr(container_module.VideoFile, "_keyframe", lying)
    frames, times = media.read(clip, size=8, frames=5)
    np.testing.assert_array_equal(times, expected[1])
    np.testing.assert_array_equal(frames, expected[0])
