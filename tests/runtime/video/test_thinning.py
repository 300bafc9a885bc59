"""Frames that are not shown and that no other needs are not decoded; what is shown stays the same (test_search)."""

from types import SimpleNamespace

import av
import numpy as np
import pytest

from storm_edge.runtime.video import container as container_module
from storm_edge.runtime.video.thinning import Thinning, has_layers

QUIET = "log-level=none"
H264 = ("libx264", {"g": "60", "bf": "3"})
HEVC = ("libx265", {"preset": "ultrafast", "x265-params": f"keyint=60:bframes=4:{QUIET}"})
LAYERED = ("libx265", {"preset": "ultrafast", "x265-params": f"keyint=60:temporal-layers=3:{QUIET}"})


def context(codec="h264", extradata=None):
    return SimpleNamespace(codec=SimpleNamespace(name=codec), extradata=extradata, skip_frame="DEFAULT")


def choices(packets, goal, codec="h264"):
    """What the decoder was told before each of the packets (pts, dts)."""
    told, thinning = context(codec), None
    thinning = Thinning(told)
    found = []
    for pts, dts in packets:
        thinning.look(SimpleNamespace(pts=pts, dts=dts), goal)
        found.append(told.skip_frame)
    return found


def test_what_is_shown_before_a_picture_up_to_the_goal_is_left_out():
    told = choices([(0, -1), (4, 0), (2, 1), (8, 2), (6, 3)], goal=5)
    assert told == ["DEFAULT", "DEFAULT", "NONREF", "DEFAULT", "DEFAULT"]  # 2 is hidden by 4; 6 comes after the goal


def test_without_a_goal_everything_is_decoded():
    assert set(choices([(0, -1), (4, 0), (2, 1)], goal=None)) == {"DEFAULT"}


@pytest.mark.parametrize(
    "odd", [(None, 2), (1, -1)], ids=["no timestamp", "decoding times that fall back, as in joined recordings"]
)
def test_from_odd_timestamps_on_everything_is_decoded(odd):
    assert set(choices([(0, -1), (4, 0), odd, (2, 3), (3, 4)], goal=9)) == {"DEFAULT"}


def test_other_codecs_decode_everything():
    assert set(choices([(0, -1), (4, 0), (2, 1)], goal=9, codec="mpeg4")) == {"DEFAULT"}


@pytest.mark.parametrize(
    ("codec", "extradata", "layers"),
    [
        ("h264", None, False),
        ("hevc", None, True),
        ("hevc", b"", True),
        ("hevc", b"\x01" + bytes(10), True),
        ("hevc", b"\x01" + bytes(20) + b"\x0f", False),  # numTemporalLayers 1
        ("hevc", b"\x01" + bytes(20) + b"\x07", True),  # 0: unknown
        ("hevc", b"\x00\x00\x00\x01\x40\x01\x0c\x01\xff", False),
        ("hevc", b"\x00\x00\x00\x01\x40\x01\x0c\x05\xff", True),
        ("hevc", b"\x00\x00\x00\x01\x40\x01", True),
    ],
)
def test_sub_layers_are_assumed_unless_the_parameters_exclude_them(codec, extradata, layers):
    assert has_layers(context(codec, extradata)) is layers


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize(("case", "layers"), [(H264, False), (HEVC, False), (LAYERED, True)])
def test_fewer_frames_are_decoded_where_that_is_safe(tmp_path, media, monkeypatch, case, layers, suffix):
    codec, options = case
    form = "mpegts" if suffix == ".ts" else None
    path = media.write(tmp_path / f"a{suffix}", media.pattern(180), codec, options=options, container=form)
    with av.open(str(path)) as opened:
        assert has_layers(opened.streams.video[0].codec_context) is layers
    every, times = media.read(path, size=16)
    decode, counts = container_module.VideoFile._decode, []

    def counting(self):
        for shot in decode(self):
            counts[-1] += 1
            yield shot

    monkeypatch.setattr(container_module.VideoFile, "_decode", counting)
    for thin in (True, False):
        counts.append(0)
        if not thin:
            monkeypatch.setattr(container_module.Thinning, "look", lambda *_: None)
        frames, shown = media.read(path, size=16, frames=5)
        expected, expected_times = media.read(every, size=16, timestamps=times, frames=5)
        np.testing.assert_array_equal(shown, expected_times)
        np.testing.assert_array_equal(frames, expected)
    assert (counts[0] == counts[1]) if layers else (counts[0] < 0.8 * counts[1])
