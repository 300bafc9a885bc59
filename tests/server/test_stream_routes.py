"""Live videos through the server: made, asked about, fed, listened to, ended, and refused."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from storm_edge.runtime.answer.pipeline import Pipeline


@contextmanager
def stream(served: Any, source: str, **more: Any) -> Iterator[str]:
    """The id of a stream, while it is watched."""
    made = httpx2.post(f"{served.url}/v1/streams", json={"source": source} | more, timeout=60)
    assert made.status_code == 200, made.text
    stream_id = made.json()["id"]
    yield stream_id
    httpx2.delete(f"{served.url}/v1/streams/{stream_id}", timeout=60)


def shown(served: Any, stream_id: str) -> dict[str, Any]:
    return dict(httpx2.get(f"{served.url}/v1/streams/{stream_id}").json())


def refused(served: Any, body: dict[str, Any]) -> tuple[int, str]:
    answer = httpx2.post(f"{served.url}/v1/streams", json=body, timeout=60)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["code"]


def png(level: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), level, np.uint8)).save(out, "png")
    return out.getvalue()


def test_a_file_is_watched_and_its_last_frames_are_asked_about(
    served: Any, pipeline: Pipeline, clips: list[Path]
) -> None:
    with stream(served, clips[0].as_uri(), fps=8, window=4) as stream_id:
        served.wait_until(lambda: shown(served, stream_id)["ended"])
        told = shown(served, stream_id)
        assert told["seen"] + told["dropped"] == 8
        assert told["object"] == "stream"
        answer = served.ask(f"stream:{stream_id}", tokens=6)
        times = answer.storm["timestamps"]
        assert times[-1] == pytest.approx(7 / 8)
        assert len(times) == min(told["seen"], 4)
        assert answer.storm["live"]["seen"] == told["seen"]
        assert answer.storm["live"]["age"] > 0
        assert answer.choices[0].message.content
        assert answer.usage.visual_tokens["before"] == len(times) * 16
        pieces = served.ask(f"stream:{stream_id}", tokens=6, stream=True)
        whole = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        assert whole == answer.choices[0].message.content
    assert httpx2.get(f"{served.url}/v1/streams/{stream_id}").status_code == 404


def test_frames_that_a_client_sends_are_a_stream(served: Any) -> None:
    with stream(served, "frames", fps=50, window=8) as stream_id:
        frames = f"{served.url}/v1/streams/{stream_id}/frames"
        for count in (1, 2, 3):
            assert httpx2.post(frames, content=png(40 * count), timeout=60).status_code == 200
            served.wait_until(lambda count=count: shown(served, stream_id)["seen"] == count)
        assert len(served.ask(f"stream:{stream_id}").storm["timestamps"]) == 3
        bad = httpx2.post(frames, content=b"no image", timeout=60)
        assert (bad.status_code, bad.json()["error"]["code"]) == (400, "video_unreadable")
        assert httpx2.post(frames, content=b"", timeout=60).status_code == 400
        assert httpx2.post(frames, content=bytes((4 << 20) + 1), timeout=60).status_code == 413
        assert shown(served, stream_id)["seen"] == 3


def test_a_listener_hears_of_answers_that_changed_and_of_the_end(served: Any, clips: list[Path]) -> None:
    with stream(served, clips[1].as_uri(), fps=8, window=2) as stream_id:
        url = f"{served.url.replace('http', 'ws')}/v1/streams/{stream_id}/events"
        asked = f"{url}?question=What%3F&every=0.2&max_tokens=3"
        with connect(asked, open_timeout=60) as socket:
            heard = [json.loads(text) for text in socket]
    assert [event["type"] for event in heard] == ["answer"] * (len(heard) - 1) + ["ended"]
    answers = [event["answer"] for event in heard[:-1]]
    assert answers
    assert all(one != other for one, other in itertools.pairwise(answers))
    assert all(event["oldest"] <= event["newest"] <= 7 / 8 for event in heard[:-1])


def test_a_listener_of_a_stream_that_is_ended_is_told(served: Any) -> None:
    with stream(served, "frames", window=4) as stream_id:
        url = f"{served.url.replace('http', 'ws')}/v1/streams/{stream_id}/events?question=What%3F&every=0.2"
        with connect(url, open_timeout=60) as socket:
            assert httpx2.delete(f"{served.url}/v1/streams/{stream_id}", timeout=60).json()["deleted"]
            assert json.loads(socket.recv(timeout=60))["error"]["code"] in ("stream_not_found", "stream_ended")


def test_who_may_not_ask_may_not_listen(serve: Callable[..., Any]) -> None:
    served = serve(keys=("a-key-of-sixteen-characters",), streams=1)
    url = served.url.replace("http", "ws") + "/v1/streams/x/events?question=What%3F"
    bearer = {"Authorization": "Bearer a-key-of-sixteen-characters"}
    for headers in ({}, {"Authorization": "Bearer another"}, bearer | {"Origin": "http://elsewhere"}):
        with pytest.raises(InvalidStatus) as caught:
            connect(url, additional_headers=headers, open_timeout=60)
        assert caught.value.response.status_code == 403
    with connect(url, additional_headers=bearer, open_timeout=60) as socket:
        assert json.loads(socket.recv(timeout=60))["error"]["code"] == "stream_not_found"


@pytest.mark.parametrize("query", ["", "?question=", "?question=a&every=0", "?question=a&max_tokens=0"])
def test_a_listener_who_asks_nothing_sensible_is_refused(served: Any, query: str) -> None:
    with pytest.raises(InvalidStatus):
        connect(f"{served.url.replace('http', 'ws')}/v1/streams/x/events{query}", open_timeout=60)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"source": "rtsp://127.0.0.1/x"}, "source_not_allowed"),
        ({"source": "/dev/video0"}, "source_not_allowed"),
        ({"source": "-"}, "source_not_allowed"),
        ({"source": "/etc"}, "source_not_allowed"),
        ({"source": "udp://0.0.0.0:1234"}, "source_not_allowed"),
        ({"source": "http://127.0.0.1:1/x"}, "url_not_allowed"),
        ({"source": "file:///etc/passwd"}, "bad_url"),
        ({"source": "file:///proc/self/fd/3"}, "bad_url"),
        ({"source": "frames", "window": 257}, "invalid_value"),
        ({"source": "frames", "window": 0}, "invalid_value"),
        ({"source": "frames", "fps": 0}, "invalid_value"),
        ({"source": "frames", "fps": 1e9}, "invalid_value"),
        ({"source": "frames", "sample": 0}, "invalid_value"),
        ({"source": ""}, "invalid_value"),
        ({"source": "x" * 5000}, "invalid_value"),
        ({"source": "frames", "follow": True}, "unsupported_parameter"),
        ({}, "invalid_value"),
    ],
)
def test_what_may_not_be_watched_is_refused(served: Any, body: dict[str, Any], code: str) -> None:
    assert refused(served, body) == (400, code)
    assert httpx2.get(f"{served.url}/v1/streams").json()["data"] == []


def test_an_address_of_a_private_network_is_not_watched_though_its_host_is_allowed(serve: Callable[..., Any]) -> None:
    served = serve(url_hosts=("127.0.0.1",))
    with stream(served, "http://127.0.0.1:1/x") as stream_id:
        served.wait_until(lambda: "cannot be reached" in served.service.streams.get(stream_id).watch.lost)
        assert shown(served, stream_id)["lost"] is True
        assert "127.0.0.1" not in json.dumps(shown(served, stream_id))


def test_what_the_owner_lists_is_watched_and_nothing_beside_it(serve: Callable[..., Any], tmp_path: Path) -> None:
    served = serve(live_sources=(str(tmp_path),))
    (tmp_path / "1.png").write_bytes(png(100))
    with stream(served, str(tmp_path)) as stream_id:
        served.wait_until(lambda: shown(served, stream_id)["seen"] == 1)
    assert refused(served, {"source": f"{tmp_path}/"}) == (400, "source_not_allowed")


def test_there_are_only_so_many_streams(serve: Callable[..., Any]) -> None:
    served = serve(streams=2)
    with stream(served, "frames"), stream(served, "frames"):
        assert refused(served, {"source": "frames"}) == (429, "too_many_streams")
    with stream(served, "frames"):
        assert len(httpx2.get(f"{served.url}/v1/streams").json()["data"]) == 1
    assert refused(serve(streams=0), {"source": "frames"}) == (429, "too_many_streams")


def test_a_stream_cannot_be_asked_before_its_first_frame_nor_looked_at_otherwise(served: Any) -> None:
    def asked(video: dict[str, Any]) -> tuple[int, str]:
        messages = served.question("stream:none")
        messages[0]["content"][0] |= video
        body = {"messages": messages, "max_tokens": 2}
        answer = httpx2.post(f"{served.url}/v1/chat/completions", json=body, timeout=60)
        return answer.status_code, answer.json()["error"]["code"]

    assert asked({}) == (404, "stream_not_found")
    with stream(served, "frames") as stream_id:
        named = {"video_url": {"url": f"stream:{stream_id}"}}
        assert asked(named) == (400, "video_unreadable")
        assert asked(named | {"fps": 2}) == (400, "unsupported_parameter")
    assert httpx2.delete(f"{served.url}/v1/streams/{stream_id}").status_code == 404
    assert httpx2.post(f"{served.url}/v1/streams/{stream_id}/frames", content=b"x").status_code == 404
