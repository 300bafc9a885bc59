"""Live video that is too fast, lossy or interrupted: what docs/live.md says of it. Prints JSON lines.

    python benchmarks/live_network.py BUNDLE fast      # a stream three times faster than this machine
    python benchmarks/live_network.py BUNDLE udp       # MPEG-TS over UDP on loopback, 1% of the packets lost
    python benchmarks/live_network.py BUNDLE restart   # a server that is killed and started again ten times
    python benchmarks/live_network.py BUNDLE rtsp      # GStreamer's RTSP server on loopback, killed half-way

`rtsp` needs, on Debian: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base
gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly
"""

from __future__ import annotations

import argparse
import http.server
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from storm_edge.demo.stream import QUESTION, SceneStream
from storm_edge.runtime import SamplingOptions, load
from storm_edge.runtime.answer.watch import Watch
from storm_edge.runtime.bundle.manifest import Bundle

FPS, WINDOW = 4.0, 8
DATAGRAM = 7 * 188  # bytes: what fits an Ethernet frame
LOSS, KILLS, DOWN = 0.01, 10, 1.0  # share of packets; times; seconds
SHORT = SamplingOptions(max_tokens=8)
RTSP = """
import gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server, factory = GstRtspServer.RTSPServer(service="{port}"), GstRtspServer.RTSPMediaFactory()
factory.set_launch("( videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=15/1 ! "
                   "x264enc tune=zerolatency key-int-max=15 ! rtph264pay name=pay0 pt=96 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("part", choices=["fast", "udp", "restart", "rtsp", "serve"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "fast": lambda: fast(given.bundle, given.seconds),
        "udp": lambda: udp(given.bundle, given.seconds),
        "restart": lambda: restart(given.bundle),
        "rtsp": lambda: rtsp(given.bundle, given.seconds),
        "serve": lambda: serve(given.port),
    }
    parts[given.part]()


def frames(rate: float, stopped: threading.Event) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """Frames of the demo, so many a second, until `stopped`; their own clock has 1000 a second."""
    scenes = SceneStream()
    shown = [scenes.frame(number) for number in range(320)]
    begun = time.monotonic()
    for number in itertools.count():
        if stopped.wait(max(begun + number / rate - time.monotonic(), 0)):
            return
        yield number / 1000, shown[number % 320]


def asked(watch: Watch) -> tuple[str, float, npt.NDArray[np.float64]]:
    """An answer, seconds from its newest frame's coming to its first word, and its frames' times."""
    begun = time.monotonic()
    answer, moment = watch.ask(QUESTION, SHORT)
    next(iter(answer), None)
    latency = moment.age + time.monotonic() - begun
    return answer.read().strip(), latency, moment.timestamps


def fast(bundle: Path, seconds: float) -> None:
    """Find out how many frames a second the machine looks at, and send three times as many."""
    pipeline, stopped = load(bundle), threading.Event()
    size, taken = Bundle.open(bundle).config.vision.image_size, []
    for _ in range(1000):
        begun = time.perf_counter()
        pipeline.stages.vision(np.zeros((1, size, size, 3), np.uint8))
        taken.append(time.perf_counter() - begun)
    able = 1 / float(np.median(taken))
    rate = 3 * able
    latencies, gaps = [], []
    with pipeline.watch(frames(rate, stopped), fps=1000, window=64) as watch:
        watch.wait(64)
        begun, sent = time.monotonic(), sum(watch.counts)
        end = begun + seconds
        while time.monotonic() < end:
            _, latency, times = asked(watch)
            latencies.append(latency)
            gaps += np.diff(np.rint(times * 1000)).astype(int).tolist()
            time.sleep(0.5)
        seen, dropped = watch.counts
        sent, took = seen + dropped - sent, time.monotonic() - begun
        stopped.set()
    report(
        "fast",
        able=round(able, 1),
        sent=round(sent / took, 1),
        seen=seen,
        dropped=dropped,
        latency=percentiles(latencies),
        gap_mean=round(float(np.mean(gaps)), 2),
        gap_p99=float(np.percentile(gaps, 99)),
        gap_max=int(max(gaps)),
    )


class Datagrams:
    """Sends what is written in datagrams, and loses some."""

    def __init__(self, port: int, loss: float) -> None:
        self._socket, self._to = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), ("127.0.0.1", port)
        self._rng, self._loss = np.random.default_rng(0), loss
        self.sent = self.lost = 0

    def write(self, data: bytes) -> int:
        """All of it, but what is lost."""
        for at in range(0, len(data), DATAGRAM):
            self.sent += 1
            if self._rng.random() < self._loss:
                self.lost += 1
            else:
                self._socket.sendto(data[at : at + DATAGRAM], self._to)
        return len(data)


def udp(bundle: Path, seconds: float) -> None:
    """Answers about a stream whose packets are lost now and then."""
    port, stopped, scenes = free_port(), threading.Event(), SceneStream(fps=FPS)
    datagrams = Datagrams(port, LOSS)
    player = threading.Thread(target=scenes.play, args=(datagrams, None, stopped))
    player.start()
    right = of = losses = 0
    latencies = []
    with load(bundle).watch(f"udp://127.0.0.1:{port}", fps=FPS, window=WINDOW) as watch:
        watch.wait()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer, latency, times = asked(watch)
            latencies.append(latency)
            losses += bool(watch.lost)
            if truth := scenes.truth(float(times[0]), float(times[-1])):
                right, of = right + (answer == truth), of + 1
            time.sleep(0.5)
        seen, dropped = watch.counts
    stopped.set()
    player.join()
    report(
        "udp",
        packets=datagrams.sent,
        lost=datagrams.lost,
        due=round(seconds * FPS),
        seen=seen,
        dropped=dropped,
        right=right,
        of=of,
        times_lost=losses,
        latency=percentiles(latencies),
    )


def restart(bundle: Path) -> None:
    """Seconds from a server's coming back to the first frame that was looked at."""
    port = free_port()
    command = [sys.executable, __file__, str(bundle), "serve", "--port", str(port)]
    resumed = []
    with load(bundle).watch(f"http://127.0.0.1:{port}/", fps=FPS, window=WINDOW) as watch:
        for run in range(KILLS + 1):
            before = watch.counts[0]
            with started(command):
                begun = time.monotonic()
                while watch.counts[0] <= before:
                    time.sleep(0.01)
                if run:
                    resumed.append(round(time.monotonic() - begun, 2))
                time.sleep(2)
                asked(watch)
            time.sleep(DOWN)
    report("restart", kills=KILLS, down=DOWN, seconds=resumed, longest=max(resumed))


def rtsp(bundle: Path, seconds: float) -> None:
    """Answers about a stream over RTSP whose server is killed half-way and started again."""
    port = free_port()
    command = ["/usr/bin/python3", "-c", RTSP.format(port=port)]
    latencies, counted = [], []
    with load(bundle).watch(f"rtsp://127.0.0.1:{port}/live", fps=FPS, window=WINDOW) as watch:
        for _ in range(2):
            with started(command):
                begun, before = time.monotonic(), watch.counts[0]
                watch.wait(before + 1, timeout=20)
                resumed = round(time.monotonic() - begun, 2)
                while time.monotonic() < begun + seconds / 2:
                    latencies.append(asked(watch)[1])
                    time.sleep(0.5)
                counted.append({"first_frame": resumed, "seen": watch.counts[0] - before})
    report("rtsp", seconds=seconds, runs=counted, dropped=watch.counts[1], latency=percentiles(latencies))


def serve(port: int) -> None:
    """The scenes in real time to everybody who asks."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                SceneStream(fps=FPS).play(self.wfile)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print("ready", flush=True)
        server.serve_forever()


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that says when it is ready, and is killed at the end."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{command[0]} did not start: see what it said, and what this part needs")
        yield process
        process.kill()


def free_port() -> int:
    """A port that nobody listens to now."""
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        return int(unbound.getsockname()[1])


def percentiles(values: list[float]) -> dict[str, float]:
    """Of seconds."""
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(max(values), 3)}


def report(part: str, **figures: object) -> None:
    """Print a line."""
    print(json.dumps({"part": part, **figures}), flush=True)


if __name__ == "__main__":
    main()
