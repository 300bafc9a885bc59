"""What read_frames makes of files that are as they should be."""

import gc
import os
import shutil
import struct

import av
import numpy as np
import pytest

from storm_edge.runtime.video import FrameBatch, read_frames

LOSSLESS = {"qp": "0"}


def test_frames_come_in_batches_of_the_models_size_with_their_timestamps(clip):
    batches = list(read_frames(clip, size=20, frames=19, batch=8))
    assert [len(b.frames) for b in batches] == [8, 8, 3]
    assert all(isinstance(b, FrameBatch) and b.frames.shape[1:] == (20, 20, 3) for b in batches)
    assert all(b.frames.dtype == np.uint8 and b.timestamps.dtype == np.float64 for b in batches)
    assert batches[0].timestamps.shape == (8,)


def test_without_frames_or_fps_every_frame_comes_once_in_order(clip, media):
    frames, times = media.read(clip, size=16)
    assert frames.shape == (300, 16, 16, 3)
    np.testing.assert_allclose(times, np.arange(300) / 30, atol=1e-9)


def test_frames_are_spread_from_the_first_to_the_last(clip, media):
    _, times = media.read(clip, size=16, frames=5)
    # 299 frames apart in quarters: 74.75, 149.5 and 224.25 show frames 74, 149 and 224.
    np.testing.assert_allclose(times * 30, [0, 74, 149, 224, 299], atol=1e-6)
    assert media.read(clip, size=16, frames=1)[1].tolist() == [0.0]


def test_fps_steps_from_the_first_frame_and_stops_at_the_last(clip, media):
    _, times = media.read(clip, size=16, fps=2)
    np.testing.assert_allclose(times, np.arange(20) / 2, atol=1e-9)
    assert len(media.read(clip, size=16, fps=30)[1]) == 300
    assert len(media.read(clip, size=16, fps=0.01)[1]) == 1


def test_frames_repeat_where_more_are_asked_for_than_there_are(tmp_path, media):
    path = media.write(tmp_path / "short.mp4", media.pattern(3))
    _, times = media.read(path, size=16, frames=7)
    np.testing.assert_allclose(times * 30, [0, 0, 0, 1, 1, 1, 2], atol=1e-6)
    assert len(media.read(path, size=16, fps=90)[1]) == 7


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "container"),
    [
        ("a.mkv", "libx264", "yuv420p", None),
        ("a.webm", "libvpx-vp9", "yuv420p", None),
        ("a.avi", "mpeg4", "yuv420p", None),
        ("a.ts", "libx264", "yuv420p", "mpegts"),
        ("a.mov", "libx264", "yuv420p", None),
        ("a.gif", "gif", "rgb8", None),
    ],
)
def test_other_containers_and_codecs_are_read(tmp_path, media, name, codec, pixels, container):
    path = media.write(tmp_path / name, media.pattern(20), codec, pixels=pixels, container=container)
    frames, times = media.read(path, size=48)
    assert len(frames) == 20
    np.testing.assert_allclose(np.diff(times), 1 / 30, atol=0.011)  # GIF counts in hundredths
    assert np.abs(np.diff(frames.astype(int), axis=0)).max(axis=(1, 2, 3)).min() > 20


@pytest.mark.parametrize(("codec", "pixels"), [("png", "rgb24"), ("mjpeg", "yuvj420p")])
def test_an_image_is_a_video_of_one_frame(tmp_path, media, codec, pixels):
    picture = np.full((1, 32, 48, 3), (200, 30, 60), np.uint8)
    path = media.write(tmp_path / "image", picture, codec, pixels=pixels, container="image2pipe")
    frames, times = media.read(path, size=16, frames=4)
    assert times.tolist() == [0, 0, 0, 0]
    assert np.abs(frames.astype(int) - picture[0, 0, 0]).max() <= 3
    assert len(media.read(path, size=16)[1]) == len(media.read(path, size=16, fps=4)[1]) == 1


def test_the_content_decides_and_never_the_name(tmp_path, clip, media):
    for name in ("a%03d.png", "b?.jpg", "c:d.mp4", "concat:e|f", "-g", "h.m3u8", "ü ö"):
        shutil.copy(clip, tmp_path / name)
        assert len(media.read(tmp_path / name, size=8, frames=2)[1]) == 2


def test_a_stream_without_timestamps_follows_its_frame_rate(tmp_path, clip, media):
    path = media.rewrap(clip, tmp_path / "raw.h264", container="h264")
    times = media.read(path, size=8)[1]
    assert len(times) == 300
    np.testing.assert_allclose(np.diff(times), times[1] - times[0])


def test_variable_frame_rates_show_what_is_shown_at_the_time(tmp_path, media):
    ticks = [0, 100, 200, 3000, 3100, 6000, 9000]  # seconds 0, 1/30, 2/30, 1, 1 + 1/30, 2, 3
    path = media.write(tmp_path / "vfr.mp4", media.pattern(7), ticks=ticks)
    np.testing.assert_allclose(media.read(path, size=8)[1], np.array(ticks) / 3000, atol=1e-4)
    expected = [0, 2 / 30, 1, 1 + 1 / 30, 2, 2, 3]
    np.testing.assert_allclose(media.read(path, size=8, frames=7)[1], expected, atol=1e-4)
    np.testing.assert_allclose(media.read(path, size=8, fps=2)[1], expected, atol=1e-4)


def test_timestamps_rounded_by_the_container_are_met(tmp_path, media):
    # Matroska writes 2/30 s as 67 ms, which is after the time asked for.
    path = media.write(tmp_path / "a.mkv", media.pattern(31))
    assert media.read(path, size=8, fps=30)[1].tolist() == media.read(path, size=8)[1].tolist()


def test_timestamps_that_start_anew_go_on(tmp_path, media):
    part = media.write(tmp_path / "part.ts", media.pattern(90), options={"bf": "0"}, container="mpegts")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 2)
    times = media.read(joined, size=8)[1]
    assert len(times) in (179, 180)  # a frame at the joint counts as cut short
    assert np.diff(times).min() > 0.033
    assert times[-1] - times[0] == pytest.approx(179 / 30, abs=1e-3)


def test_the_clip_need_not_start_at_zero(tmp_path, media):
    path = media.write(tmp_path / "late.mkv", media.pattern(60), ticks=[6000 + 100 * i for i in range(60)])
    _, times = media.read(path, size=8, frames=3)
    np.testing.assert_allclose(times, [2, 2 + 29 / 30, 2 + 59 / 30], atol=1e-3)
    assert media.read(path, size=8, fps=1)[1].tolist() == [2.0, 3.0]


def test_a_missing_duration_is_found_by_decoding(tmp_path, clip, media):
    path = media.rewrap(clip, tmp_path / "live.mkv", options={"live": "1"})
    with av.open(str(path)) as opened:
        assert opened.duration is None
    np.testing.assert_allclose(media.read(path, size=8, frames=2)[1], [0, 299 / 30], atol=1e-3)


def test_a_wrong_duration_misleads_nobody(tmp_path, clip, media):
    path = media.rewrap(clip, tmp_path / "front.mp4", options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])  # the header still says ten seconds
    every = media.read(path, size=8)[1]
    assert 60 < len(every) < 250
    assert media.read(path, size=8, frames=4)[1][-1] == every[-1]
    assert media.read(path, size=8, fps=1)[1][-1] <= every[-1]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_recording_made_sideways_is_turned_upright(tmp_path, media, turns):
    picture = np.zeros((4, 64, 64, 3), np.uint8)
    picture[:, :32, :32], picture[:, :32, 32:], picture[:, 32:, :32] = 250, 160, 80
    path = media.write(tmp_path / "a.mp4", picture, rotation=90.0 * turns, options=LOSSLESS)
    # The display matrix turns counter-clockwise, as np.rot90 does.
    expected = np.rot90(picture[0], turns)
    frames, _ = media.read(path, size=64, frames=1)
    assert np.abs(frames[0].astype(int) - expected).mean() < 3


@pytest.mark.parametrize(("mirror", "axis"), [("hflip", 1), ("vflip", 0)])
def test_a_mirrored_recording_is_mirrored_back(tmp_path, media, mirror, axis):
    picture = np.zeros((4, 64, 64, 3), np.uint8)
    picture[:, :32, :32], picture[:, :32, 32:], picture[:, 32:, :32] = 250, 160, 80
    path = media.write(tmp_path / "a.mp4", picture, rotation=0.0, mirror={mirror: True}, options=LOSSLESS)
    frames, _ = media.read(path, size=64, frames=1)
    assert np.abs(frames[0].astype(int) - np.flip(picture[0], axis)).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_and_mirrored_as_its_exif_says(tmp_path, media, orientation):
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    picture[:, :32, :32], picture[:, :32, 32:], picture[:, 32:, :32] = 250, 160, 80
    plain = media.write(tmp_path / "a.jpg", picture, "mjpeg", pixels="yuvj444p", container="image2pipe").read_bytes()
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x112, 3, 1, orientation, 0)
    path = tmp_path / "b.jpg"
    path.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:])
    straight = picture[0]
    upright = {
        1: straight,
        2: straight[:, ::-1],
        3: straight[::-1, ::-1],
        4: straight[::-1],
        5: straight.transpose(1, 0, 2),
        6: np.rot90(straight, 3),
        7: straight[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(straight),
    }
    frames, _ = media.read(path, size=64)
    assert np.abs(frames[0].astype(int) - upright[orientation]).mean() < 8


def test_colours_follow_the_files_colour_space_and_range(tmp_path, media):
    bars = np.zeros((2, 64, 64, 3), np.uint8)
    colours = [
        (255, 255, 255),
        (0, 0, 0),
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (40, 120, 200),
        (128, 128, 128),
        (9, 9, 9),
    ]
    for i, colour in enumerate(colours):
        bars[:, 8 * i : 8 * i + 8] = colour
    for space, name in ((1, "bt709"), (5, "smpte170m")):
        for full, code in (("tv", 1), ("pc", 2)):
            path = tmp_path / f"{name}{full}.mp4"
            with av.open(str(path), "w") as output:
                stream = output.add_stream("libx264", rate=30, options={"qp": "0"})
                stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv444p"
                stream.codec_context.colorspace, stream.codec_context.color_range = space, code
                for bar in bars:
                    frame = av.VideoFrame.from_ndarray(bar, format="rgb24")
                    output.mux(
                        stream.encode(frame.reformat(format="yuv444p", dst_colorspace=space, dst_color_range=code))
                    )
                output.mux(stream.encode())
            frames, _ = media.read(path, size=64)
            assert np.abs(frames[0].astype(int) - bars[0])[4:60:8].max() <= 4, path.name


def test_only_a_few_frames_are_held_however_long_the_clip(clip):
    def frames_held():
        return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())

    gc.collect()
    gc.disable()  # frames must go by themselves, not when Python looks for cycles
    try:
        before = frames_held()
        for arguments in ({}, {"frames": 40}, {"fps": 7}):
            most = max(frames_held() for _ in read_frames(clip, size=8, batch=50, **arguments))
            assert most - before < 60  # of 300; as many as the decoder delays, which is about one a thread
    finally:
        gc.enable()


def test_nothing_is_written_to_the_terminal(tmp_path, clip, media, capfd):
    broken = tmp_path / "broken.mkv"
    data = bytearray(media.rewrap(clip, broken).read_bytes())
    for position in range(2000, len(data), 997):
        data[position] ^= 0xFF
    broken.write_bytes(data)
    media.read(broken, size=8)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files the Linux way")
def test_a_reader_left_early_closes_its_files(clip):
    before = len(os.listdir("/proc/self/fd"))
    reader = read_frames(clip, size=8, frames=4, batch=1)
    next(reader)
    next(reader)
    assert len(os.listdir("/proc/self/fd")) > before
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before
