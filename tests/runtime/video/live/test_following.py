from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from storm_edge.demo.encode import encode_video
from storm_edge.runtime.errors import UsageError, VideoError
from storm_edge.runtime.video.live import Following, live_source
from storm_edge.runtime.video.live.stream import LiveStream
from storm_edge.runtime.video.resizing import Pixels
from storm_edge.runtime.video.sampling import Shot

BLACK = np.zeros((8, 8, 3), np.uint8)


def taken(source: object, count: int, fps: float = 100) -> list[Shot[Pixels]]:
    """The first frames of a source, or all that come within some seconds."""
    following = Following(source, 16, fps)  # type: ignore[arg-type]
    timer = threading.Timer(8, following.stopped.set)
    timer.daemon = True  # a test that fails does not wait for it
    timer.start()
    found: list[Shot[Pixels]] = []
    for shot in following.shots():
        found.append(shot)
        if len(found) == count:
            following.stopped.set()
    timer.cancel()
    return found


@dataclass
class Flaky:
    """A source that breaks off after two frames and comes back with its clock at 0 and another resolution."""

    opened: int = 0
    returns: bool = True

    def shots(self, stopped: threading.Event) -> Iterator[Shot[Pixels]]:
        self.opened += 1
        if self.opened == 2:
            raise VideoError("refused")
        side = 8 * self.opened
        for i in range(2):
            yield Shot(100.0 / self.opened**4 + i, np.full((side, 2 * side, 3), self.opened, np.uint8))


def stream_of(path: Path, frames: int = 8) -> bytes:
    """An MPEG-TS stream of that many frames."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=8, options={"tune": "zerolatency"})
        stream.width = stream.height = 64
        for i in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * i, np.uint8), "rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def test_a_source_that_breaks_off_comes_back_and_time_goes_on() -> None:
    source = Flaky()
    found = taken(source, 4)
    assert source.opened == 3
    assert [shot.frame[0, 0, 0] for shot in found] == [1, 1, 3, 3]
    times = [shot.time for shot in found]
    assert times == sorted(times)
    assert 0.2 < times[2] - times[1] < 2


def test_frames_are_taken_at_the_pace_that_was_asked_for() -> None:
    pairs = [(i / 30, BLACK) for i in range(90)]
    assert [shot.time for shot in taken(live_source(pairs, 16), 99, fps=2)] == [0, 0.5, 1, 1.5, 2, 2.5]


def test_a_clock_that_jumps_does_no_harm() -> None:
    pairs = [(time, BLACK) for time in (5.0, 6.0, 1e9, 7.0, 8.0, -3.0)]
    times = [shot.time for shot in taken(live_source(pairs, 16), 99, fps=1)]
    assert times[:3] == [5, 6, 1e9]
    assert times == sorted(times)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    data = stream_of(tmp_path / "s.ts")
    out, into = os.pipe()
    os.write(into, data)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        assert len(taken(live_source(pipe, 16), 99)) == 8


def test_a_file_is_played_in_real_time(tmp_path: Path) -> None:
    encode_video(tmp_path / "v.mp4", [np.zeros((64, 64, 3), np.uint8)] * 5, fps=8)
    begun = time.monotonic()
    assert len(taken(live_source(tmp_path / "v.mp4", 16), 99)) == 5
    assert time.monotonic() - begun >= 0.5


def test_a_folder_gives_its_newest_image_and_those_that_follow(tmp_path: Path) -> None:
    for i in range(9):
        encode_video(tmp_path / "v.mp4", [np.full((64, 64, 3), 20 * i, np.uint8)])
        (tmp_path / "v.mp4").rename(tmp_path / f"frame{i}.png")
    source = live_source(tmp_path, 16)
    following = Following(source, 16, 100)
    shots = following.shots()
    assert abs(int(next(shots).frame[0, 0, 0]) - 160) < 8
    (tmp_path / "frame3.png").rename(tmp_path / "frame10.png")
    assert abs(int(next(shots).frame[0, 0, 0]) - 60) < 8
    following.stopped.set()


def test_a_server_is_asked_again_after_every_end(tmp_path: Path) -> None:
    data, asked = stream_of(tmp_path / "s.ts"), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = taken(live_source(f"http://127.0.0.1:{server.server_port}/live", 16), 20)
        server.shutdown()
    assert len(found) == 20
    assert len(asked) >= 3
    assert np.all(np.diff([shot.time for shot in found]) > 0)


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("ftp://host/x", VideoError, "ftp:// is not watched here"),
        ("file:///etc/passwd", VideoError, "file:// is not watched here"),
        ("concat:a|b", VideoError, "there is no file"),
        ("nowhere.mp4", VideoError, "there is no file"),
        (3, UsageError, "int cannot be watched"),
    ],
)
def test_what_cannot_be_watched_is_refused_at_once(source: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        live_source(source, 16)  # type: ignore[arg-type]


def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    stream_of(tmp_path / "s.ts")
    out, into = os.pipe()
    os.write(into, f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path / 's.ts'}\n#EXT-X-ENDLIST\n".encode())
    os.close(into)
    with os.fdopen(out, "rb") as pipe, pytest.raises(VideoError, match="cannot be opened"):
        taken(live_source(pipe, 16), 1)


def test_a_password_is_not_reported() -> None:
    assert str(LiveStream.of_url("rtsp://me:secret@camera:554/live")) == "rtsp://camera:554/live"
