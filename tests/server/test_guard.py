from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

KEY = "k" * 32


def test_a_key_is_asked_for_everywhere_but_where_nothing_is_told(serve: Callable[..., Any], clips: list[Path]) -> None:
    served = serve(keys=(KEY, "other" * 8))
    for path in ("/v1/models", "/metrics", "/version", "/openapi.json", "/v1/files", "/nothing"):
        answer = httpx2.get(f"{served.url}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), path
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/health", "/ready", "/"):
        assert httpx2.get(f"{served.url}{path}").status_code == 200
    for wrong in (f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", "Bearer", "Bearer \xff", KEY):
        assert (
            httpx2.get(f"{served.url}/v1/models", headers={"Authorization": wrong.encode("latin-1")}).status_code == 401
        )
    for key in (KEY, "other" * 8):
        client = served.client.with_options(api_key=key)
        assert client.models.list().data
        messages = served.question(clips[0].as_uri())
        assert client.chat.completions.create(model="mini", messages=messages, max_tokens=1).choices


def test_pages_of_elsewhere_are_refused_unless_they_are_allowed(serve: Callable[..., Any]) -> None:
    served = serve(origins=("https://good.org",))

    def status(origin: str, method: str = "POST", path: str = "/v1/files") -> int:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return httpx2.request(method, f"{served.url}{path}", headers=headers).status_code

    assert status("https://evil.org") == status("null") == 403
    assert status(served.url) == status("https://good.org") == 415  # let through, to where the form is missing
    assert status("https://good.org", "OPTIONS") == 200
    assert status("https://evil.org", "OPTIONS") == 403
    allowed = httpx2.get(f"{served.url}/health", headers={"Origin": "https://good.org"}).headers
    assert allowed["access-control-allow-origin"] == "https://good.org"
    assert "access-control-allow-origin" not in httpx2.get(f"{served.url}/health").headers


def test_a_name_that_was_made_to_lead_here_is_refused(serve: Callable[..., Any]) -> None:
    served = serve(hosts=("127.0.0.1", "localhost"))
    assert httpx2.get(f"{served.url}/health").status_code == 200
    answer = httpx2.get(f"{served.url}/v1/models", headers={"Host": "evil.org"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_host")


def test_requests_over_their_limit_are_refused_before_they_are_read(serve: Callable[..., Any]) -> None:
    served = serve(max_body=1000)
    url, headers = f"{served.url}/v1/chat/completions", {"Content-Type": "application/json"}
    assert httpx2.post(url, content=b"x" * 1001, headers=headers).status_code == 413
    pieces = httpx2.post(url, content=iter([b"x" * 600] * 2), headers=headers)  # without a length
    assert (pieces.status_code, pieces.json()["error"]["code"]) == (413, "too_large")
    assert httpx2.post(url, content=b"{", headers=headers).json()["error"]["code"] == "invalid_json"
    assert httpx2.post(url, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 400
    nested = b'{"messages": ' + b"[" * 490 + b"]" * 490 + b"}"
    assert httpx2.post(url, content=nested, headers=headers).status_code == 400
    assert httpx2.post(url, content=b"{}", headers=headers).status_code == 400


def test_only_so_many_bytes_of_requests_are_held_at_a_time(serve: Callable[..., Any]) -> None:
    served = serve(max_body=10_000)
    go = threading.Event()

    def slowly() -> Any:
        yield b'{"messages": [' + b" " * 9900
        go.wait(20)
        yield b"]}"

    headers = {"Content-Type": "application/json"}
    url = f"{served.url}/v1/chat/completions"
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: statuses.append(httpx2.post(url, content=slowly(), headers=headers).status_code)
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    guard_full = lambda: httpx2.post(url, content=b" " * 1000, headers=headers).status_code == 429  # noqa: E731
    served.wait_until(guard_full)
    go.set()
    for thread in threads:
        thread.join()
    assert statuses == [400] * 4
    assert httpx2.post(url, content=b" " * 1000, headers=headers).status_code == 400


def test_an_upload_that_breaks_off_leaves_nothing(serve: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    served = serve()
    host, port = served.url.removeprefix("http://").split(":")
    head = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=B\r\n\r\n"
    form = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nxxx'
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head + form)
        served.wait_until(lambda: list(served.service.files.folder.iterdir()))
    served.wait_until(lambda: served.metric('storm_requests_total{path="/v1/files",status="499"}') == 1)
    assert (list(served.service.files.folder.iterdir()), served.service.files.taken) == ([], 0)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000,
    ],
)
def test_what_is_no_http_harms_nobody(served: Any, sent: bytes) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        try:
            connection.sendall(sent)
            answer = connection.recv(1000)
        except ConnectionError:
            answer = b""
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert httpx2.get(f"{served.url}/health").status_code == 200


def test_neither_questions_nor_paths_are_logged_unless_that_is_wanted(
    serve: Callable[..., Any], clips: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "storm_edge.server")
    serve().ask(clips[0].as_uri(), "A private question?")
    assert "/v1/chat/completions 200" in caplog.text
    assert "private" not in caplog.text
    assert clips[0].name not in caplog.text
    serve(log_prompts=True).ask(clips[0].as_uri(), "A private question?")
    assert "A private question?" in caplog.text
