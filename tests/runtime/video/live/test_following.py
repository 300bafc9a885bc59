from __future__ import annotations

import http.server
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from storm_edge.runtime.errors import UsageError, VideoError
from storm_edge.runtime.video.encode import encode_video
from storm_edge.runtime.video.live import Following, live_source, stream
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
            pixels = np.full((64, 64, 3), 20 * i % 251, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
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


@contextmanager
def served(data: bytes) -> Iterator[http.server.HTTPServer]:
    """A server that answers everything with these bytes; `asked` has the paths."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    asked: list[str] = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = asked  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_server_is_asked_again_after_every_end(tmp_path: Path) -> None:
    with served(stream_of(tmp_path / "s.ts")) as server:
        found = taken(live_source(f"http://127.0.0.1:{server.server_port}/live", 16), 20)
        assert len(server.asked) >= 3  # type: ignore[attr-defined]
    assert len(found) == 20
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
    with os.fdopen(out, "rb") as pipe, pytest.raises(VideoError, match=r"cannot be opened .*sends MPEG-TS"):
        taken(live_source(pipe, 16), 1)


def test_a_password_is_not_reported() -> None:
    assert str(LiveStream.of_url("rtsp://me:secret@camera:554/live")) == "rtsp://camera:554/live"


@dataclass
class Writer:
    """Writes the frames of a stream to a file, some at a time."""

    path: Path
    container: str = "mpegts"

    def __post_init__(self) -> None:
        self.file = self.path.open("wb", buffering=0)
        options = {"flush_packets": "1"}
        self.output = av.open(self.file, "w", format=self.container, container_options=options)
        self.stream = self.output.add_stream("libx264", rate=8, options={"tune": "zerolatency"})
        self.stream.width = self.stream.height = 64
        self.count = 0

    def write(self, frames: int) -> None:
        for _ in range(frames):
            pixels = np.random.default_rng(self.count).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            self.output.mux(self.stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
            self.count += 1


@pytest.mark.parametrize("container", ["mpegts", "flv"])
def test_a_file_that_grows_is_followed(tmp_path: Path, container: str) -> None:
    writer = Writer(tmp_path / "v", container)
    writer.write(20)
    following = Following(live_source(tmp_path / "v", 16, follow=True), 16, 100)
    shots = following.shots()
    found = [next(shots) for _ in range(12)]
    later = threading.Timer(0.4, writer.write, [20])
    later.start()
    found += [next(shots) for _ in range(20)]
    later.join()
    assert writer.count == 40
    np.testing.assert_allclose(np.diff([shot.time for shot in found]), 1 / 8, atol=2e-3)
    following.stopped.set()


def test_a_file_that_is_replaced_is_opened_again(tmp_path: Path) -> None:
    Writer(tmp_path / "v").write(20)
    following = Following(live_source(tmp_path / "v", 16, follow=True), 16, 100)
    shots = following.shots()
    found = [next(shots) for _ in range(4)]

    def replaced() -> None:
        Writer(tmp_path / "new").write(24)
        (tmp_path / "new").replace(tmp_path / "v")

    later = threading.Timer(0.3, replaced)
    later.start()
    found += [next(shots) for _ in range(24)]
    later.join()
    assert np.all(np.diff([shot.time for shot in found]) > 0)
    following.stopped.set()


def test_a_long_file_is_joined_near_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = stream_of(tmp_path / "s.ts", 600)
    monkeypatch.setattr(stream, "_JOINED", len(data) // 4)
    first = taken(live_source(tmp_path / "s.ts", 16, follow=True), 1)[0]
    begins = taken(live_source(tmp_path / "s.ts", 16), 1)[0]
    assert first.time > begins.time + 20


def test_only_a_file_can_be_followed(tmp_path: Path) -> None:
    for source in (tmp_path, "-", "rtsp://camera", [(0.0, BLACK)], tmp_path / "missing"):
        with pytest.raises(UsageError, match="no file that could grow"):
            live_source(source, 16, follow=True)


def test_a_stream_over_tls_needs_a_certificate_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([openssl, *map(str, made), *names], check=True, capture_output=True)
    data = stream_of(tmp_path / "s.ts")
    with served(data) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = f"https://localhost:{server.server_port}/live"
        refused = Following(live_source(url, 16), 16, 100)
        threading.Timer(1, refused.stopped.set).start()
        assert list(refused.shots()) == []
        assert "cannot be opened" in refused.lost
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert len(taken(live_source(url, 16), 8)) == 8


@pytest.mark.parametrize("scheme", ["rtmp", "rtmps", "rtsp"])
def test_who_does_not_answer_is_told_and_asked_again(scheme: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        following = Following(live_source(f"{scheme}://127.0.0.1:{nobody.getsockname()[1]}/x", 16), 16, 100)
        threading.Timer(0.5, following.stopped.set).start()
        assert list(following.shots()) == []
    assert f"{scheme}://127.0.0.1" in following.lost
    assert "Connection refused" in following.lost
