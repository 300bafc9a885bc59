"""A server under load, driven by OpenAI's client: what docs/serving.md says of it.

    python benchmarks/serve.py BUNDLE [--requests 1000] [--only load,overhead,overlap]

Starts `storm serve BUNDLE` itself, on clips of the demo. One request in twenty is hostile: bad JSON, an upload cut
short, a file that is no video, a prompt of 10 MB, a client that goes away in the middle of its answer, one that reads
slowly. Every other must be answered as the Python API answers it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import openai

from storm_edge.demo.dataset import FPS, make_sample
from storm_edge.runtime import SamplingOptions, load
from storm_edge.runtime.video.encode import encode_video

CLIPS, FRAMES, SIZE = 40, 32, 128
Clip = tuple[Path, str]


def main() -> None:
    """Run what is asked for and print it as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--trust-engines", action="store_true", help="the engine was built by another user")
    parser.add_argument("--only", default="load,overhead,overlap")
    given = parser.parse_args()
    options = ["--trust-engines"] if given.trust_engines else []
    with tempfile.TemporaryDirectory() as folder:
        clips = make_clips(Path(folder))
        parts: dict[str, Callable[[], None]] = {
            "load": lambda: under_load(given.bundle, clips, options, given.requests),
            "overhead": lambda: overhead(given.bundle, clips, options),
            "overlap": lambda: overlap(given.bundle, clips, options),
        }
        for name in given.only.split(","):
            parts[name]()


def make_clips(folder: Path) -> list[Clip]:
    """Clips of the demo with a question each."""
    clips = []
    for seed in range(CLIPS):
        sample = make_sample(seed, frames=FRAMES, size=SIZE)
        encode_video(folder / f"{seed}.mp4", sample.frames, fps=FPS)
        clips.append((folder / f"{seed}.mp4", sample.question.text))
    return clips


@contextmanager
def served(bundle: Path, root: Path, *options: object) -> Iterator[str]:
    """A server's address, while it runs."""
    command = [
        Path(sys.executable).parent / "storm",
        "serve",
        bundle,
        "--port",
        0,
        "--name",
        "demo",
        "--media-root",
        root,
    ]
    process = subprocess.Popen([*map(str, [*command, *options])], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        yield line.split(" at ")[1].strip()
    finally:
        process.terminate()
        assert process.wait(30) == 0, "the server did not end well"


def client(url: str) -> openai.OpenAI:
    """OpenAI's client of a server."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def ask(api: openai.OpenAI, clip: Clip, **more: Any) -> Any:
    """An answer about a clip under the media root."""
    content: Any = [{"type": "video_url", "video_url": {"url": clip[0].as_uri()}}, {"type": "text", "text": clip[1]}]
    return api.chat.completions.create(model="demo", messages=[{"role": "user", "content": content}], **more)


def memory(url: str) -> float:
    """MiB that the server holds."""
    with urlopen(f"{url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("process_resident_memory_bytes")) / 2**20


def hostile(url: str, kind: int, clip: Clip) -> str:
    """Do one thing that no client should; returns what the server said."""
    host, port = url.removeprefix("http://").split(":")
    api = client(url)
    if kind == 0:
        return raw(host, int(port), "/v1/chat/completions", "application/json", b'{"messages": [', 14)
    if kind == 1:
        form = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 1000
        return raw(host, int(port), "/v1/files", "multipart/form-data; boundary=B", form, 5000)
    if kind in (2, 3):
        wrong: Any = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,bm8gdmlkZW8="}}
        text = "why? " * 2_000_000 if kind == 3 else clip[1]
        try:
            content: Any = [wrong, {"type": "text", "text": text}]
            api.chat.completions.create(model="demo", messages=[{"role": "user", "content": content}])
        except openai.APIStatusError as e:
            return str(e.status_code)
        return "answered"
    stream = ask(api, clip, stream=True)
    for _ in stream:
        if kind == 4:
            break
        time.sleep(0.2)
    stream.close()
    return "went away" if kind == 4 else "read slowly"


def raw(host: str, port: int, path: str, kind: str, body: bytes, length: int) -> str:
    """Send a body and close; the status, where one comes."""
    with socket.create_connection((host, port), timeout=30) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + body)
        if len(body) < length:
            return "cut short"
        return connection.recv(100).split(b" ")[1].decode()


def under_load(bundle: Path, clips: list[Clip], options: list[str], requests: int) -> None:
    """Many requests, eight at a time."""
    pipeline = load(bundle, trust_engines=bool(options))
    truth = {clip: pipeline.open(clip[0]).ask(clip[1]).read() for clip in clips}
    del pipeline
    times: list[float] = []
    said: Counter[str] = Counter()
    with served(bundle, clips[0][0].parent, *options) as url, ThreadPoolExecutor(8) as threads:
        api = client(url)

        def one(number: int) -> None:
            clip = clips[number * 7 % CLIPS]
            begin = time.perf_counter()
            try:
                if number % 20 == 19:
                    with suppress(ConnectionError, TimeoutError):
                        said[f"hostile: {hostile(url, number // 20 % 6, clip)}"] += 1
                    return
                answer = ask(api, clip).choices[0].message.content
                times.append(time.perf_counter() - begin)
                said["as the Python API" if answer == truth[clip] else "WRONG ANSWER"] += 1
            except openai.APIStatusError as e:
                said[str(e.status_code)] += 1

        list(threads.map(one, range(200)))  # until all clips are in the cache, and all pools are as large as they get
        said.clear()
        times.clear()
        before, begin = memory(url), time.perf_counter()
        list(threads.map(one, range(requests)))
        took, after = time.perf_counter() - begin, memory(url)
    print(f"\n{requests} requests, 8 at a time, in {took:.1f} s ({requests / took:.0f} a second)\n")
    print("| what came back | times |\n|---|---|")
    for name, count in sorted(said.items()):
        print(f"| {name} | {count} |")
    cuts = statistics.quantiles(times, n=100)
    print(f"\np50 {1000 * cuts[49]:.0f} ms, p99 {1000 * cuts[98]:.0f} ms;", end=" ")
    print(f"memory {before:.0f} MiB before, {after:.0f} MiB after ({100 * (after / before - 1):+.1f}%)", flush=True)


def overhead(bundle: Path, clips: list[Clip], options: list[str]) -> None:
    """The same questions through the server and through the Python API, in turns; the video is known to both."""
    pipeline = load(bundle, trust_engines=bool(options))
    seconds: dict[str, list[float]] = {"Python API": [], "server": [], "first": [], "second": []}
    with served(bundle, clips[0][0].parent, *options) as url:
        api = client(url)
        ask(api, clips[-1])
        for clip in clips[:20]:
            for which in ("first", "second"):  # until the first piece of the answer
                begin = time.perf_counter()
                stream = ask(
                    api, (clip[0], clip[1] if which == "first" else "How many objects are there?"), stream=True
                )
                next(chunk for chunk in stream if chunk.choices[0].delta.content)
                seconds[which].append(time.perf_counter() - begin)
                stream.close()
            video = pipeline.open(clip[0])
            video.ask(clip[1]).read()
            for _ in range(5):
                for which, answer in (
                    ("Python API", lambda video=video, clip=clip: video.ask(clip[1], SamplingOptions()).read()),
                    ("server", lambda clip=clip: ask(api, clip)),
                ):
                    begin = time.perf_counter()
                    answer()
                    seconds[which].append(time.perf_counter() - begin)
    middle = {which: 1000 * statistics.median(values) for which, values in seconds.items()}
    print(
        f"\na question about a known video: Python API {middle['Python API']:.1f} ms, server {middle['server']:.1f} ms"
    )
    print(f"(overhead {middle['server'] - middle['Python API']:.1f} ms);")
    print(
        f"first piece of the answer: first question {middle['first']:.0f} ms, second {middle['second']:.0f} ms",
        flush=True,
    )


def overlap(bundle: Path, clips: list[Clip], options: list[str]) -> None:
    """Clips that nobody has asked about: one client who waits for every answer, then four at a time."""
    rates: dict[int, list[float]] = {1: [], 4: []}
    words = {"max_tokens": 64}
    with served(bundle, clips[0][0].parent, "--cache", "0", "--threads", 1, *options) as url:
        api = client(url)
        ask(api, clips[0])
        for number in itertools.islice(itertools.cycle((1, 4)), 6):
            with ThreadPoolExecutor(number) as threads:
                begin = time.perf_counter()
                list(threads.map(lambda clip: ask(api, clip, **words), clips[:20]))
                rates[number].append(20 / (time.perf_counter() - begin))
    alone, beside = (statistics.median(rates[number]) for number in (1, 4))
    print(f"\none after the other {alone:.1f} answers a second, stages beside each other {beside:.1f}", end=" ")
    print(f"({beside / alone:.2f} times); {json.dumps(words)}", flush=True)


if __name__ == "__main__":
    main()
