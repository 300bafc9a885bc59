"""A server of its own for a test, asked through OpenAI's client."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray
from openai import OpenAI

from storm_edge.runtime import load
from storm_edge.runtime.answer.pipeline import Pipeline
from storm_edge.runtime.video.encode import encode_video
from storm_edge.server.app import make_app
from storm_edge.server.run import listen
from storm_edge.server.service import Service
from storm_edge.server.settings import Settings


class Served:
    """A running server."""

    def __init__(self, service: Service) -> None:
        self.service, self.scheduler = service, service.scheduler
        bound = listen("127.0.0.1", 0)
        bound.listen()  # a client may be sooner than the server's thread
        self.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        config = uvicorn.Config(make_app(service), log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        service.start()
        self._thread = threading.Thread(target=self._server.run, args=([bound],), daemon=True)
        self._thread.start()
        self.client = OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    @staticmethod
    def question(url: str, text: str = "What happens?") -> list[Any]:
        """Messages with a video and a question."""
        content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": text}]
        return [{"role": "user", "content": content}]

    @staticmethod
    def data_url(path: Path) -> str:
        """A video's contents as a URL."""
        return f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"

    def ask(self, url: str, text: str = "What happens?", tokens: int = 4, **more: Any) -> Any:
        """An answer of at most so many tokens, or a stream."""
        return self.client.chat.completions.create(
            model="mini", messages=self.question(url, text), max_tokens=tokens, **more
        )

    def metric(self, line: str) -> float:
        """The value of a line of /metrics."""
        lines = self.service.metrics.text().decode().splitlines()
        return next((float(x.rpartition(" ")[2]) for x in lines if x.startswith(f"{line} ")), 0.0)

    @staticmethod
    def wait_until(true: Callable[[], object], seconds: float = 60) -> None:
        """Wait for a condition."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    def close(self) -> None:
        """End it."""
        self._server.should_exit = True
        self._thread.join(5)
        self.client.close()
        self.service.close()


def pixels(seed: int, frames: int = 8) -> NDArray[np.uint8]:
    """A clip uint8 [frames, 64, 64, 3] of moving blocks."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([np.roll(coarse, 5 * t, axis=1) for t in range(frames)])


@pytest.fixture(scope="session")
def pipeline(bundle: Path) -> Pipeline:
    return load(bundle)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four short videos."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{seed}.mp4" for seed in range(4)]
    for seed, path in enumerate(paths):
        encode_video(path, pixels(seed))
    return paths


@pytest.fixture(scope="session")
def root(clips: list[Path]) -> Path:
    """The folder of the videos, which is a media root of every server."""
    return clips[0].parent


@pytest.fixture
def serve(pipeline: Pipeline, root: Path) -> Iterator[Callable[..., Served]]:
    """Starts servers with settings of the test's own."""
    begun: list[Served] = []

    def start(**settings: Any) -> Served:
        served = Served(Service(pipeline, replace(Settings(media_roots=(root,)), **settings), "mini"))
        begun.append(served)
        return served

    yield start
    for served in begun:
        served.close()


@pytest.fixture(scope="module")
def served(pipeline: Pipeline, root: Path) -> Iterator[Served]:
    """One server for tests that leave it as it was."""
    server = Served(Service(pipeline, Settings(media_roots=(root,)), "mini"))
    yield server
    server.close()
