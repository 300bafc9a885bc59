"""Files whose metadata is missing or wrong, and files damaged where it hurts: as much as can be is read."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest


def box(data, name, nth=0):
    """Where the nth box of an MP4 with this name begins (its length comes first) and how long it is."""
    at = -1
    for _ in range(nth + 1):
        at = data.index(name, at + 1)
    return at - 4, struct.unpack(">I", data[at - 4 : at])[0]


@pytest.mark.parametrize("factor", [0, 0.1, 10, 1000])
def test_an_mp4_whose_headers_lie_about_its_duration_is_sampled_to_its_end(tmp_path, clip, media, factor):
    data = bytearray(clip.read_bytes())
    for name, offset in ((b"mvhd", 24), (b"tkhd", 28), (b"mdhd", 24)):
        at, _ = box(data, name)
        (ticks,) = struct.unpack_from(">I", data, at + offset)
        assert ticks > 0
        struct.pack_into(">I", data, at + offset, min(int(ticks * factor), 2**32 - 1))
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    _, times = media.check_samples(path)
    np.testing.assert_allclose(times, np.arange(300) / 30, atol=1e-6)


@pytest.mark.parametrize("seconds", [0.0, 1.0, 1e6])
def test_a_matroska_file_whose_header_lies_about_its_duration_is_sampled_to_its_end(tmp_path, clip, media, seconds):
    path = media.rewrap(clip, tmp_path / "a.mkv")
    data = path.read_bytes()
    at = data.index(b"\x44\x89\x88")  # Duration, a double, in milliseconds
    path.write_bytes(data[: at + 3] + struct.pack(">d", 1000 * seconds) + data[at + 11 :])
    assert len(media.check_samples(path)[1]) == 300


def with_edits(data, edits, scale=1000):
    """An MP4, its index at its end, that shows only `edits`: (seconds shown, from which second; -1 shows nothing)."""
    at, length = box(data, b"elst")
    media_scale = struct.unpack_from(">I", data, box(data, b"mdhd")[0] + 20)[0]
    entries = b"".join(
        struct.pack(">IiI", round(shown * scale), -1 if start < 0 else round(start * media_scale), 0x10000)
        for shown, start in edits
    )
    elst = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits)) + entries
    data = bytearray(data[:at] + elst + data[at + length :])
    for name in (b"moov", b"trak", b"edts"):
        start, size = box(data, name)
        struct.pack_into(">I", data, start, size + len(elst) - length)
    return data


@pytest.mark.parametrize(
    ("edits", "frames"),
    [
        ([(10, 0.1)], 295),  # cut in front, not at a keyframe
        ([(4, 2.5)], 120),  # a piece of the middle
        ([(2, -1), (5, 1)], 150),  # a pause, then five seconds
        ([(2, 6), (3, 1)], 150),  # two pieces in reverse order
    ],
    ids=["front", "middle", "pause", "pieces"],
)
def test_edit_lists_are_followed_the_same_way_however_a_clip_is_sampled(tmp_path, clip, media, edits, frames):
    path = tmp_path / "a.mp4"
    path.write_bytes(with_edits(clip.read_bytes(), edits))
    _, times = media.check_samples(path)
    assert abs(len(times) - frames) <= 4


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("damage", ["noise", "zeros"])
def test_a_broken_index_costs_time_and_no_frames(tmp_path, clip, media, suffix, damage):
    path = tmp_path / f"a.{suffix}"
    if suffix == "avi":
        media.write(path, media.pattern(300), "mpeg4", options={"g": "30"}, tick=Fraction(1, 30))
    else:
        media.rewrap(clip, path)
    every, _ = media.read(path, size=16)
    data = bytearray(path.read_bytes())
    if suffix == "mp4":  # which frames are keyframes
        at, length = box(data, b"stss")
        start, end = at + 16, at + length
    elif suffix == "mkv":  # Cues
        at = data.rindex(b"\x1c\x53\xbb\x6b")
        start, end = at, min(at + 120, len(data))
    else:
        start, end = data.rindex(b"idx1"), len(data)
    noise = np.random.default_rng(3).bytes(end - start)
    data[start:end] = noise if damage == "noise" else bytes(end - start)
    path.write_bytes(data)
    assert len(media.check_samples(path)[0]) == len(every) == 300


def test_an_index_that_calls_every_frame_a_keyframe_misleads_nobody(tmp_path, clip, media):
    data = bytearray(clip.read_bytes())
    at, _ = box(data, b"stss")
    data[at + 4 : at + 8] = b"free"  # without the list, all are
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    assert len(media.check_samples(path)[0]) == 300


def without_head(source, path, drop, container=None):
    """The packets of a file but the first `drop`, so that it begins in the middle of a group of pictures."""
    with av.open(str(source)) as given, av.open(str(path), "w", format=container) as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(given.demux(given.streams.video[0])):
            if packet.dts is not None and number >= drop:
                packet.stream = stream
                output.mux(packet)
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("drop", [1, 10, 29])
def test_a_recording_that_begins_between_keyframes_is_read_from_where_it_can_be(tmp_path, clip, media, suffix, drop):
    path = without_head(clip, tmp_path / f"a.{suffix}", drop, "mpegts" if suffix == "ts" else None)
    every, times = media.check_samples(path)
    assert len(times) >= 265
    whole, _ = media.read(clip, size=16)
    np.testing.assert_array_equal(every[-260:], whole[-260:])


def test_leading_pictures_that_refer_to_what_is_not_there_are_left_out(tmp_path, media):
    options = {"preset": "ultrafast", "x265-params": "keyint=20:min-keyint=20:open-gop=1:bframes=3:log-level=none"}
    whole = media.write(tmp_path / "whole.mkv", media.pattern(80), "libx265", options=options)
    expected, _ = media.read(whole, size=16)
    with av.open(str(whole)) as given:
        second = [i for i, packet in enumerate(given.demux(video=0)) if packet.is_keyframe][1]
    path = without_head(whole, tmp_path / "a.mkv", second)
    every, _ = media.check_samples(path)
    assert second < 20  # pictures shown before the keyframe follow it in the file
    assert len(every) == 60
    np.testing.assert_array_equal(every, expected[-60:])


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_keyframe+empty_moov+default_base_moof", "dash"])
def test_fragmented_mp4_is_sampled_as_a_full_decode_does(tmp_path, clip, media, flags):
    path = media.rewrap(clip, tmp_path / "a.mp4", options={"movflags": flags})
    assert len(media.check_samples(path)[1]) == 300


def test_a_track_of_sound_or_a_second_picture_makes_no_difference(tmp_path, clip, media):
    path = tmp_path / "a.mkv"
    with av.open(str(clip)) as given, av.open(str(path), "w") as output:
        sound = output.add_stream("aac", rate=8000)
        first, second = (output.add_stream_from_template(given.streams.video[0]) for _ in range(2))
        for packet in list(given.demux(given.streams.video[0])):
            if packet.dts is not None:
                for stream in (first, second):
                    packet.stream = stream
                    output.mux(packet)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        output.mux(sound.encode(silence))
        output.mux(sound.encode())
    assert len(media.check_samples(path)[1]) == 300
