"""`snap` takes the nearest keyframe within a tolerance, and says when that is shown."""

import av
import numpy as np
import pytest

from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.video import container as container_module

QUIET = "log-level=none"
CASES = {
    "b-frames": ("libx264", {"g": "30", "bf": "3"}),
    "open groups": ("libx264", {"x264-params": "open-gop=1:keyint=30:bframes=3:b-adapt=0"}),
    "intra refresh": ("libx264", {"x264-params": "intra-refresh=1:keyint=40:bframes=0"}),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": f"keyint=30:open-gop=1:{QUIET}"}),
    "vp9": ("libvpx-vp9", {"g": "30", "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "16"}),
    "av1": ("libsvtav1", {"g": "30", "preset": "12"}),
}


def keyframes(path):
    """When the keyframes of a file are shown, in seconds."""
    with av.open(str(path)) as opened:
        stream = opened.streams.video[0]
        return sorted(float(p.pts * stream.time_base) for p in opened.demux(stream) if p.is_keyframe and p.size)


def wanted(times, keys, asked, snap):
    """The nearest keyframe within `snap` of each time, else the last frame shown by then."""
    for time in asked:
        near = min(keys, key=lambda key: abs(key - time))
        yield near if abs(near - time) <= snap else times[np.searchsorted(times, time + 0.5e-3, "right") - 1]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("varying", [False, True], ids=["constant", "varying"])
@pytest.mark.parametrize("case", [name for name in CASES if name != "intra refresh"])
def test_the_nearest_keyframe_is_taken_within_the_tolerance_and_the_frame_itself_beyond(
    tmp_path, media, case, varying, suffix
):
    codec, options = CASES[case]
    steps = np.random.default_rng(5).integers(20, 400, 300) if varying else np.full(300, 100)
    ticks = (250 + np.cumsum(steps)).tolist()
    path = media.write(tmp_path / f"a{suffix}", media.pattern(300), codec, options=options, ticks=ticks)
    every, times = media.read(path, size=16)
    keys = keyframes(path)
    for snap in (0.05, 0.3, 100):
        for arguments in ({"frames": 23}, {"fps": 1.5}):
            frames, shown = media.read(path, size=16, snap=snap, **arguments)
            asked = (
                np.linspace(times[0], times[-1], arguments["frames"])
                if "frames" in arguments
                else times[0] + np.arange(int((times[-1] - times[0] + 0.5e-3) * 1.5) + 1) / 1.5
            )
            np.testing.assert_allclose(shown, list(wanted(times, keys, asked, snap)), atol=1e-9)
            assert (np.diff(shown) >= 0).all()
            places = [int(np.flatnonzero(times == time)[-1]) for time in shown]
            np.testing.assert_array_equal(frames, every[places])


def test_keyframes_that_need_others_are_not_taken(tmp_path, media):
    codec, options = CASES["intra refresh"]
    path = media.write(tmp_path / "a.mp4", media.pattern(200), codec, options=options)
    every, times = media.read(path, size=16)
    frames, shown = media.read(path, size=16, frames=9, snap=100)
    np.testing.assert_array_equal(frames, every[[int(np.flatnonzero(times == time)[-1]) for time in shown]])


def test_only_keyframes_and_the_ends_are_decoded(clip, media, monkeypatch):
    decode, count = container_module.VideoFile._decode, [0]

    def counting(self):
        for shot in decode(self):
            count[0] += 1
            yield shot

    monkeypatch.setattr(container_module.VideoFile, "_decode", counting)
    _, times = media.read(clip, size=8, frames=9, snap=0.6)
    assert set(times) <= set(keyframes(clip))
    assert count[0] <= 1 + 2 + 30  # the first frames, and the last group, to find the span


def test_a_keyframe_shown_twice_is_decoded_once(clip, media, monkeypatch):
    alone, seen = container_module.VideoFile._alone, []

    def watching(self, keyframe):
        seen.append(keyframe.time)
        return alone(self, keyframe)

    monkeypatch.setattr(container_module.VideoFile, "_alone", watching)
    media.read(clip, size=8, frames=90, snap=1)
    assert len(seen) == len(set(seen)) == len(keyframes(clip))


def test_what_has_no_index_gives_the_frames_themselves(tmp_path, clip, media):
    stream = media.rewrap(clip, tmp_path / "a.ts", container="mpegts")
    for source in (stream, media.pattern(20)):
        for arguments in ({"frames": 5}, {"fps": 0.7}):
            snapped, shown = media.read(source, size=8, snap=9, **arguments)
            frames, times = media.read(source, size=8, **arguments)
            np.testing.assert_array_equal(shown, times)
            np.testing.assert_array_equal(snapped, frames)


@pytest.mark.parametrize("snap", [-1, float("nan"), float("inf"), "2", True, [1], 10**400])
def test_a_tolerance_that_is_no_time_is_refused(clip, media, snap):
    with pytest.raises(UsageError, match="snap is"):
        media.read(clip, size=8, frames=2, snap=snap)


def test_snapping_needs_times_to_move(clip, media):
    with pytest.raises(UsageError, match="frames or fps"):
        media.read(clip, size=8, snap=1)
