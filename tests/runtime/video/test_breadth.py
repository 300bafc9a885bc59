"""Containers, codecs and pixel formats that users bring: a sample equals what a decode of everything gives."""

from fractions import Fraction

import av
import numpy as np
import pytest

H264 = ("libx264", "yuv420p", {"g": "12", "bf": "2"})
HEVC = ("libx265", "yuv420p", {"preset": "ultrafast", "x265-params": "keyint=12:open-gop=1:log-level=none"})
VP9 = ("libvpx-vp9", "yuv420p", {"g": "12", "deadline": "realtime", "cpu-used": "8"})
# x264 reads memory it has not written, so that the same pictures give other files from run to run, as
# MALLOC_PERTURB_ shows. Without loss, what comes out is what went in, whatever it chose.
LOSSLESS = {"g": "10", "qp": "0"}
AV1 = ("libsvtav1", "yuv420p", {"g": "12", "preset": "12"})
MPEG4 = ("mpeg4", "yuv420p", {"g": "12", "bf": "2"})
CODECS = {"h264": H264, "hevc": HEVC, "vp9": VP9, "av1": AV1, "mpeg4": MPEG4}
CONTAINERS = {
    "mp4": ("h264", "hevc", "vp9", "av1", "mpeg4"),
    "mkv": ("h264", "hevc", "vp9", "av1", "mpeg4"),
    "webm": ("vp9", "av1"),
    "avi": ("h264", "mpeg4"),
    "mov": ("h264", "hevc", "mpeg4"),
    "ts": ("h264", "hevc"),
}
PAIRS = [(container, codec) for container, codecs in CONTAINERS.items() for codec in codecs]


@pytest.mark.parametrize(("container", "codec"), PAIRS)
def test_every_codec_is_read_from_every_container_that_takes_it(tmp_path, media, container, codec):
    name, pixels, options = CODECS[codec]
    path = media.write(
        tmp_path / f"a.{container}",
        media.pattern(60),
        name,
        pixels=pixels,
        options=options,
        container="mpegts" if container == "ts" else None,
        tick=Fraction(1, 30) if container == "avi" else None,  # the clock of AVI is its frame rate
    )
    _, times = media.check_samples(path, least=60)
    np.testing.assert_allclose(times - times[0], np.arange(60) / 30, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p10le"),
        ("a.mkv", "libx264", "yuv422p10le"),
        ("a.mp4", "libx265", "yuv420p10le"),
        ("a.mkv", "libx265", "yuv444p12le"),
        ("a.mp4", "libsvtav1", "yuv420p10le"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.mov", "qtrle", "argb"),
        ("a.mkv", "ffv1", "yuva420p"),
        ("a.mkv", "ffv1", "gray16le"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.apng", "apng", "rgba"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_ten_bits_grey_and_alpha_give_the_same_picture(tmp_path, media, name, codec, pixels):
    ramp = np.zeros((8, 48, 64, 3), np.uint8)
    ramp[:] = np.linspace(20, 230, 64, dtype=np.uint8)[None, None, :, None]
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = media.write(tmp_path / name, ramp, codec, pixels=pixels, options=options)
    frames, _ = media.check_samples(path, least=8)
    expected = media.read(ramp[:1], size=16)[0][0]
    assert np.abs(frames[0].astype(int) - expected).mean() < 8


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 51), (2, 300), (270, 2), (17, 16)])
def test_odd_and_extreme_sizes_are_read(tmp_path, media, height, width):
    for name, codec, pixels in (("a.mkv", "libx264", "yuv444p"), ("b.mov", "png", "rgb24")):
        flat = np.full((6, height, width, 3), (200, 60, 90), np.uint8)
        frames, _ = media.check_samples(media.write(tmp_path / name, flat, codec, pixels=pixels), least=6)
        assert np.abs(frames.astype(int) - (200, 60, 90)).max() <= 6


def test_the_shape_of_pixels_makes_no_difference(tmp_path, media):
    # Frames become squares whatever their shape, so stretching them first changes nothing.
    frames = {}
    for ratio in (Fraction(1), Fraction(4, 3), Fraction(1, 2)):
        path = tmp_path / f"{ratio.numerator}.mp4"
        with av.open(str(path), "w") as output:
            stream = output.add_stream("libx264", rate=30, options=LOSSLESS)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            stream.codec_context.sample_aspect_ratio = ratio
            for picture in media.pattern(4):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode())
        with av.open(str(path)) as written:
            assert written.streams.video[0].sample_aspect_ratio == ratio
        frames[ratio] = media.read(path, size=16)[0]
    for other in frames.values():
        np.testing.assert_array_equal(other, frames[Fraction(1)])


@pytest.mark.parametrize("codec", CODECS)
def test_a_video_of_one_frame_is_read_in_every_way(tmp_path, media, codec):
    name, pixels, options = CODECS[codec]
    if codec == "hevc":  # x265 that may reorder leaves the decoding time of a lone frame to chance
        options = options | {"x265-params": options["x265-params"] + ":bframes=0"}
    path = media.write(tmp_path / "a.mkv", media.pattern(1), name, pixels=pixels, options=options)
    _, times = media.check_samples(path)
    assert len(times) == 1


@pytest.mark.parametrize(("container", "codec"), [("mp4", "h264"), ("mkv", "vp9"), ("mp4", "av1"), ("mov", "hevc")])
def test_variable_frame_rates_sample_as_a_full_decode_does(tmp_path, media, container, codec):
    name, pixels, options = CODECS[codec]
    ticks = np.cumsum(np.random.default_rng(1).choice([50, 100, 100, 700], 60)).tolist()
    path = media.write(
        tmp_path / f"a.{container}", media.pattern(60), name, pixels=pixels, options=options, ticks=ticks
    )
    _, times = media.check_samples(path, least=60)
    np.testing.assert_allclose(times - times[0], (np.array(ticks) - ticks[0]) / 3000, atol=2e-3)


def test_a_gif_keeps_its_own_pace(tmp_path, media):
    ticks = [0, 300, 3000, 3300, 9000, 9030]
    path = media.write(tmp_path / "a.gif", media.pattern(6), "gif", pixels="rgb8", ticks=ticks)
    _, times = media.check_samples(path, least=6)
    np.testing.assert_allclose(times, np.array(ticks) / 3000, atol=0.011)


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_a_turned_recording_samples_as_a_full_decode_does(tmp_path, media, suffix, turns):
    path = media.write(tmp_path / f"a.{suffix}", media.pattern(40), rotation=90.0 * turns, options=LOSSLESS)
    every, _ = media.check_samples(path, least=40)
    straight = media.read(media.write(tmp_path / f"b.{suffix}", media.pattern(40), options=LOSSLESS), size=16)[0]
    np.testing.assert_array_equal(every, np.rot90(straight, turns, axes=(1, 2)))
