"""What cannot be read is refused in one line that says what to do, and nothing else is opened on the way."""

import os
import socket

import numpy as np
import pytest

from storm_edge.runtime.errors import UsageError, VideoError
from storm_edge.runtime.video import read_frames


def refused(source, kind=VideoError, **arguments):
    with pytest.raises(kind) as caught:
        list(read_frames(source, **{"size": 8, **arguments}))
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_a_missing_file_is_refused_at_once(tmp_path):
    with pytest.raises(VideoError, match="there is no file"):
        read_frames(tmp_path / "nothing.mp4", size=8)
    assert "there is no file" in refused(tmp_path / "clip.mp4" / "below")
    assert "there is no file" in refused("nul\0byte")


def test_a_folder_without_images_an_empty_file_and_a_pipe_are_refused(tmp_path):
    assert "holds no images" in refused(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert "is empty" in refused(tmp_path / "empty.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "is not a file" in refused(tmp_path / "pipe.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (tmp_path / "secret.mp4").chmod(0)
    assert "permissions" in refused(tmp_path / "secret.mp4")


def test_text_and_noise_are_refused(tmp_path):
    (tmp_path / "a.mp4").write_text("not a video\n" * 200)
    (tmp_path / "b.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    for name in ("a.mp4", "b.mp4"):
        assert "is not a video that can be read here" in refused(tmp_path / name)


def test_sound_alone_is_refused_as_such(tmp_path, media):
    for name, codec in (("a.wav", "pcm_s16le"), ("a.mp4", "aac"), ("a.mka", "pcm_s16le")):
        assert "holds no pictures" in refused(media.sound(tmp_path / name, codec))


def test_an_mp4_cut_before_its_index_is_refused(tmp_path, clip):
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:-20_000])
    assert "cut short" in refused(tmp_path / "cut.mp4")


def test_a_video_cut_short_gives_what_is_left(tmp_path, clip, media):
    whole = media.rewrap(clip, tmp_path / "a.mkv")
    every, times = media.read(whole, size=8)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames, left = media.read(cut, size=8)
    assert 100 < len(left) < 200
    np.testing.assert_array_equal(left, times[: len(left)])
    np.testing.assert_array_equal(frames[:-4], every[: len(left) - 4])  # the very last may refer to what is lost


def test_a_video_without_a_whole_frame_is_refused(tmp_path, clip, media):
    path = media.rewrap(clip, tmp_path / "front.mp4", options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 40])
    for arguments in ({}, {"frames": 3}, {"fps": 1}):
        assert "no frame of" in refused(path, **arguments)


def test_an_unknown_codec_is_refused_as_such(tmp_path, clip):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    assert "codec unknown" in refused(path)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        yield server


@pytest.mark.parametrize("url", ["https://x/y", "rtsp://x/y", "file:///etc/hostname", "concat://a", "s3://b/c"])
def test_urls_are_refused(url):
    assert "is not a local file" in refused(url)


def test_a_url_is_refused_without_a_connection(listener):
    refused("http://{}:{}/a.mp4".format(*listener.getsockname()))
    with pytest.raises(TimeoutError):
        listener.accept()


@pytest.mark.parametrize("name", ["playlist.m3u8", "playlist.mp4", "x.ffconcat", "x.mpd", "x.sdp", "x.srt", "x.svg"])
def test_files_that_name_other_files_open_none(tmp_path, clip, listener, name):
    host, port = listener.getsockname()
    url = f"http://{host}:{port}/a.ts"
    text = {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}\n#EXTINF:5,\n{clip}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{clip}'\nfile '{url}'\n",
        "mpd": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        f"<BaseURL>{url}</BaseURL></Period></MPD>\n",
        "sdp": f"v=0\no=- 0 0 IN IP4 {host}\ns=x\nc=IN IP4 {host}\nt=0 0\nm=video {port} RTP/AVP 96\n",
        "srt": "1\n00:00:00,000 --> 00:00:01,000\nhello\n\n",
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>',
    }
    path = tmp_path / name
    path.write_text(text.get(name.split(".")[1], text["m3u8"]))
    assert "is not a video that can be read here" in refused(path)
    with pytest.raises(TimeoutError):
        listener.accept()


@pytest.mark.parametrize("frames", [0, -1, 10**9, 2.5, "8", True, float("nan")])
def test_wrong_numbers_of_frames_are_refused_at_once(clip, frames):
    with pytest.raises(UsageError, match=r"frames is .*: give a whole number from 1 to"):
        read_frames(clip, size=8, frames=frames)


@pytest.mark.parametrize("fps", [0, -1, 1e9, 1e-30, float("nan"), float("inf"), "fast", True, [2]])
def test_wrong_rates_are_refused_at_once(clip, fps):
    with pytest.raises(UsageError, match=r"fps is .*: give frames per second"):
        read_frames(clip, size=8, fps=fps)


def test_wrong_sizes_and_batches_are_refused_at_once(clip):
    for arguments in ({"size": 0}, {"size": 10**6}, {"size": 8.5}, {"size": 8, "batch": 0}, {"size": 8, "batch": -3}):
        with pytest.raises(UsageError, match="give a whole number"):
            read_frames(clip, **arguments)


def test_frames_and_fps_together_are_refused(clip):
    assert "exclude each other" in refused(clip, UsageError, frames=4, fps=2)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((2, 0, 8, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_arrays_of_another_type_or_shape_are_refused_at_once(array):
    with pytest.raises(UsageError, match="give uint8 RGB of shape"):
        read_frames(array, size=8)


@pytest.mark.parametrize("timestamps", [[0, 1], [0, 2, 1], [0, 1, float("nan")], "abc", [[0, 1, 2]], [0, None, "x"]])
def test_timestamps_that_do_not_fit_are_refused(timestamps):
    assert "timestamps" in refused(np.zeros((3, 8, 8, 3), np.uint8), UsageError, timestamps=timestamps)


def test_timestamps_of_a_file_are_its_own(clip):
    assert "timestamps belong to an array or a folder" in refused(clip, UsageError, timestamps=[0, 1])


def test_things_that_are_no_video_are_refused():
    for source in (None, 5, 2.5, b"abc", [1, 2], [(0,)], [("a", np.zeros((8, 8, 3), np.uint8))]):
        refused(source, UsageError)
    assert "no frame of" in refused([])
    assert "no frame of" in refused(iter(()), frames=3)


def test_frames_of_an_iterable_are_checked_one_by_one():
    good = np.zeros((8, 8, 3), np.uint8)
    assert "frame 1 is float64" in refused([(0, good), (1, good.astype(float))], UsageError)
    assert "timestamps must ascend" in refused([(0, good), (2, good), (1, good)], UsageError)
    assert "timestamps must ascend" in refused([(0, good), (float("nan"), good)], UsageError)
