"""The server as a process: how it starts, and how it ends when it is told to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import safetensors.torch

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.export_bundle import export_bundle
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.machine.targets import target
from storm_edge.server.run import listen

STORM = Path(sys.executable).parent / "storm"


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that says a or b at every step, whatever the processor rounds: one's embedding is the other's negative,
    and all others' are small. So no answer ends by itself, or waits for the rest of a character.
    """
    folder = tmp_path_factory.mktemp("endless")
    copy = Path(shutil.copytree(checkpoint, folder / "checkpoint"))
    weights = safetensors.torch.load_file(copy / "llm" / "model.safetensors")
    vocabulary = json.loads((copy / "llm" / "tokenizer.json").read_text())["model"]["vocab"]
    embedding = weights["model.embed_tokens.weight"]
    said = embedding[vocabulary["a"]].clone()
    embedding *= 0.01
    embedding[vocabulary["a"]], embedding[vocabulary["b"]] = said, -said
    safetensors.torch.save_file(weights, copy / "llm" / "model.safetensors", {"format": "pt"})
    export_bundle(copy, folder / "bundle")
    build(Bundle.open(folder / "bundle"), target("cpu"), BuildOptions())
    return folder / "bundle"


class Process:
    """A running `storm serve`, once it has said where it listens."""

    def __init__(self, scratch: Path, *arguments: object) -> None:
        command = [str(STORM), "serve", *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(scratch)},
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        assert " at http://" in self.said, self.process.communicate()
        self.url = self.said.split(" at ")[1].strip()
        self.said += self.process.stdout.readline()

    def stream(self, clip: Path, tokens: int) -> Iterator[dict[str, Any]]:
        """The events of an answer."""
        content = [{"type": "video_url", "video_url": {"url": clip.as_uri()}}, {"type": "text", "text": "What?"}]
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": tokens, "stream": True}
        with httpx2.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=60) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line.removeprefix("data: "))


@pytest.fixture
def start(bundle: Path, root: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    begun: list[Process] = []

    def starting(*options: object) -> Process:
        begun.append(Process(tmp_path, bundle, "--media-root", root, *options))
        return begun[-1]

    yield starting
    for one in begun:
        one.process.kill()
        one.process.communicate()


def test_it_says_where_it_is_and_how_to_ask_and_ends_when_told(start: Callable[..., Process], tmp_path: Path) -> None:
    server = start("--drain", 20)
    assert "engine cpu-fp32" in server.said
    assert f"curl {server.url}/v1/chat/completions" in server.said
    server.process.send_signal(signal.SIGTERM)  # nobody asks: it need not wait
    assert server.process.wait(10) == 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{server.url}/health")


def test_a_running_answer_finishes_and_new_questions_are_refused(
    start: Callable[..., Process], clips: list[Path]
) -> None:
    server = start("--drain", 60)
    events = server.stream(clips[0], tokens=3000)
    next(events)
    server.process.send_signal(signal.SIGTERM)
    while httpx2.get(f"{server.url}/ready").status_code == 200:
        pass
    assert next(server.stream(clips[1], 4), None) is None  # 503, which is no stream
    assert httpx2.get(f"{server.url}/health").status_code == 200
    *_, last = events
    assert last["choices"][0]["finish_reason"] == "length"
    assert server.process.wait(10) == 0


def test_a_second_signal_ends_at_once_and_leaves_nothing(
    start: Callable[..., Process], clips: list[Path], tmp_path: Path
) -> None:
    server = start("--drain", 60, "--timeout", 600)
    events = server.stream(clips[0], tokens=3000)
    next(events)
    for _ in range(2):
        server.process.send_signal(signal.SIGINT)
        threading.Event().wait(0.2)
    assert server.process.wait(5) == 128 + signal.SIGINT
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_takes_longer_than_it_may_is_broken_off(
    start: Callable[..., Process], clips: list[Path]
) -> None:
    server = start("--drain", 0.2)
    events = server.stream(clips[0], tokens=3000)
    next(events)
    server.process.send_signal(signal.SIGTERM)
    *_, last = events
    assert last["error"]["code"] == "shutting_down"
    assert server.process.wait(10) == 0


def test_answers_do_not_wait_to_be_sent() -> None:
    bound = listen("127.0.0.1", 0)
    assert bound.proto == socket.IPPROTO_TCP  # what asyncio looks at before it sets TCP_NODELAY
    bound.close()


def test_an_address_that_is_taken_is_said_before_anything_is_loaded() -> None:
    taken = listen("127.0.0.1", 0)
    taken.listen()
    with pytest.raises(UsageError, match="cannot listen on 127"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UsageError, match="cannot listen on"):
        listen("no host of this name.invalid", 80)
    taken.close()
