"""The interface, through OpenAI's own client."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from storm_edge.runtime import SamplingOptions
from storm_edge.runtime.answer.pipeline import Pipeline


def refused(call: Callable[..., Any], *arguments: Any, **more: Any) -> tuple[int, str, str | None]:
    with pytest.raises(openai.APIStatusError) as caught:
        call(*arguments, **more)
    error = caught.value.response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return caught.value.status_code, error["code"], error["param"]


@pytest.mark.parametrize("how", ["data", "file", "upload"])
def test_the_answer_is_the_pipelines_own_whichever_way_the_video_comes(
    how: str, served: Any, pipeline: Pipeline, clips: list[Path]
) -> None:
    url = served.data_url(clips[0]) if how == "data" else clips[0].as_uri()
    if how == "upload":
        with clips[0].open("rb") as file:
            url = served.client.files.create(file=file, purpose="user_data").id
    answer = served.ask(url, tokens=8)
    video = pipeline.open(clips[0])
    truth = video.ask("What happens?", SamplingOptions(max_tokens=8))
    assert answer.choices[0].message.content == truth.read()
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens == truth.stats.prompt_tokens
    assert answer.usage.completion_tokens == 8
    assert answer.usage.visual_tokens == {"before": 8 * 16, "after": 32}
    assert answer.storm["timestamps"] == video.timestamps.tolist()
    assert answer.storm["engine"] == "cpu-fp32"


def test_a_stream_says_the_same_in_pieces_and_ends_with_what_it_took(served: Any, clips: list[Path]) -> None:
    whole = served.ask(clips[1].as_uri(), tokens=8).choices[0].message.content
    chunks = list(
        served.ask(
            clips[1].as_uri(),
            tokens=8,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"storm": ["frames"]},
        )
    )
    first, *_, last, usage = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole
    assert first.choices[0].delta.role == "assistant"
    assert len(first.storm["frames"]) == len(first.storm["timestamps"]) == 8
    assert base64.b64decode(first.storm["frames"][0].partition(",")[2])[:3] == b"\xff\xd8\xff"
    assert last.choices[0].finish_reason == "length"
    assert {"queue", "prefill", "decode"} <= set(last.storm["seconds"])
    assert usage.choices == []
    assert usage.usage.completion_tokens == 8
    assert len({chunk.id for chunk in chunks}) == 1


def test_frames_are_chosen_as_vllm_and_qwen_say_it(served: Any, clips: list[Path]) -> None:
    def seen(part: dict[str, Any] | None = None, video: dict[str, Any] | None = None) -> list[float]:
        messages = served.question(clips[0].as_uri())
        messages[0]["content"][0] |= part or {}
        body = {"media_io_kwargs": {"video": video}} if video else {}
        found = served.client.chat.completions.create(model="mini", messages=messages, max_tokens=1, extra_body=body)
        return found.storm["timestamps"]

    assert seen(video={"num_frames": 3}) == pytest.approx([0, 0.375, 0.875])
    assert seen(video={"fps": 4}) == seen({"fps": 4}) == pytest.approx([0, 0.25, 0.5, 0.75])
    assert seen({"fps": 4, "max_frames": 2}) == pytest.approx([0, 0.875])
    assert seen({"max_frames": 2}) == pytest.approx([0, 0.875])
    assert len(seen()) == 8


def test_an_image_and_a_list_of_images_are_videos(served: Any, clips: list[Path]) -> None:
    frames = served.ask(clips[0].as_uri(), stream=True, extra_body={"storm": ["frames"]})
    pictures = next(iter(frames)).storm["frames"]
    frames.close()

    def ask(part: dict[str, Any]) -> Any:
        content = [part, {"type": "text", "text": "What is it?"}]
        messages: Any = [{"role": "user", "content": content}]
        return served.client.chat.completions.create(model="mini", messages=messages, max_tokens=2).storm["timestamps"]

    assert ask({"type": "image_url", "image_url": {"url": pictures[0]}}) == [0]
    assert ask({"type": "video", "video": pictures[:5], "fps": 2}) == [0, 0.5, 1, 1.5, 2]
    assert ask({"type": "video", "video": pictures[:5], "max_frames": 3}) == [0, 2, 4]


def test_a_conversation_goes_on_from_its_turns(served: Any, pipeline: Pipeline, clips: list[Path]) -> None:
    messages = served.question(clips[2].as_uri(), "One?")
    first = served.client.chat.completions.create(model="mini", messages=messages, max_tokens=3)
    messages += [first.choices[0].message, {"role": "user", "content": "Two?"}]
    second = served.client.chat.completions.create(model="mini", messages=messages, max_tokens=3)
    video = pipeline.open(clips[2])
    video.chat("One?", SamplingOptions(max_tokens=3)).read()
    truth = video.chat("Two?", SamplingOptions(max_tokens=3))
    assert second.choices[0].message.content == truth.read()
    assert second.storm["video_cached"]
    assert second.usage.prompt_tokens_details.cached_tokens > first.usage.prompt_tokens - 3


def test_files_are_kept_until_they_are_deleted(served: Any, clips: list[Path]) -> None:
    with clips[0].open("rb") as file:
        kept = served.client.files.create(file=("../../x.mp4", file), purpose="vision")
    assert (kept.bytes, kept.purpose, kept.filename) == (clips[0].stat().st_size, "vision", "x.mp4")
    assert kept.id in [file.id for file in served.client.files.list()]
    assert served.client.files.retrieve(kept.id).id == kept.id
    assert served.client.files.delete(kept.id).deleted
    assert refused(served.client.files.retrieve, kept.id)[:2] == (404, "file_not_found")
    assert refused(served.ask, kept.id)[:2] == (404, "file_not_found")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("n", 2),
        ("logprobs", True),
        ("response_format", {"type": "json_object"}),
        ("frequency_penalty", 0.5),
        ("logit_bias", {"5": 1}),
        ("audio", {}),
        ("reasoning_effort", "high"),
        ("stream_options", {"include_usage": True}),
    ],
)
def test_what_would_be_ignored_is_refused_by_name(served: Any, clips: list[Path], field: str, value: object) -> None:
    status, code, param = refused(served.ask, clips[0].as_uri(), extra_body={field: value})
    assert (status, code, str(param).partition(".")[0]) == (400, "unsupported_parameter", field)


def test_values_that_ask_for_nothing_are_taken(served: Any, clips: list[Path]) -> None:
    nothing = {"n": 1, "logprobs": False, "tools": [], "frequency_penalty": 0, "presence_penalty": 0.0, "seed": None}
    assert served.ask(clips[0].as_uri(), extra_body=nothing).choices


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"messages": []}, "invalid_value"),
        ({"messages": [{"role": "user", "content": "no video"}]}, "invalid_value"),
        ({"temperature": "hot"}, "invalid_value"),
        ({"temperature": float("inf")}, "invalid_value"),
        ({"top_p": 0.5}, "invalid_value"),
        ({"seed": -1}, "invalid_value"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "invalid_value"),
        ({"media_io_kwargs": {"video": {"num_frames": 100_000}}}, "invalid_value"),
        ({"stop": [""]}, "invalid_value"),
    ],
)
def test_values_that_mean_nothing_are_refused(served: Any, clips: list[Path], body: dict[str, Any], code: str) -> None:
    content = httpx2.post(
        f"{served.url}/v1/chat/completions",
        content=json.dumps({"messages": served.question(clips[0].as_uri())} | body),
        headers={"Content-Type": "application/json"},
    )
    assert (content.status_code, content.json()["error"]["code"]) == (400, code)


def test_videos_that_are_none_are_refused_and_no_path_is_told(served: Any, root: Path) -> None:
    (root / "no.mp4").write_bytes(b"no video" * 100)
    (root / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n0.mp4\n")
    for name in ("no.mp4", "list.m3u8"):
        with pytest.raises(openai.BadRequestError) as caught:
            served.ask((root / name).as_uri())
        assert caught.value.code == "video_unreadable"
        assert str(root) not in caught.value.message
        assert "/proc" not in caught.value.message
    assert refused(served.ask, (root / "none.mp4").as_uri())[:2] == (400, "bad_url")


def test_text_that_is_no_unicode_is_answered_all_the_same(served: Any, clips: list[Path]) -> None:
    body = b'{"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "%s"}},' % (
        clips[0].as_uri().encode()
    )
    body += b'{"type": "text", "text": "\\ud800"}]}], "max_tokens": 1, "\\udfff": %d}'
    for extra in (b"1", b""):
        sent = body.replace(b', "\\udfff": %d', b"") if not extra else body.replace(b"%d", extra)
        headers = {"Content-Type": "application/json"}
        answer = httpx2.post(f"{served.url}/v1/chat/completions", content=sent, headers=headers)
        assert answer.status_code == (400 if extra else 200)


def test_it_tells_how_it_is(served: Any) -> None:
    def get(path: str) -> Any:
        return httpx2.get(f"{served.url}{path}")

    assert get("/health").json() == {"status": "alive"}
    assert get("/ready").json() == {"status": "ready"}
    assert get("/version").json()["engine"] == "cpu-fp32"
    assert [model.id for model in served.client.models.list()] == ["mini"]
    assert served.client.models.retrieve("mini").id == "mini"
    assert refused(served.client.models.retrieve, "other")[:2] == (404, "model_not_found")
    assert "storm_requests_total" in get("/metrics").text
    assert get("/nothing").json()["error"]["code"] == "not_found"
    assert get("/v1/chat/completions").json()["error"]["code"] == "method_not_allowed"
    assert get("/docs").status_code == 404  # it would load from elsewhere
    assert "/v1/chat/completions" in get("/openapi.json").json()["paths"]
    assert get("/health").headers["x-content-type-options"] == "nosniff"


def test_what_fails_inside_is_told_in_general_words(
    serve: Callable[..., Any], clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    monkeypatch.setattr(served.scheduler.engine, "begin", lambda *_: Path("/secret/place").read_text())
    status, code, _ = refused(served.ask, clips[0].as_uri())
    assert (status, code) == (500, "engine_failed")
    monkeypatch.undo()
    assert served.ask(clips[0].as_uri()).choices


def test_an_upload_is_written_as_it_comes_and_no_longer_than_it_may_be(serve: Callable[..., Any]) -> None:
    served = serve(max_upload=1000, storage=1500)
    files = served.client.files
    assert refused(files.create, file=("a", io.BytesIO(b"x" * 1001)), purpose="user_data")[:2] == (
        413,
        "file_too_large",
    )
    files.create(file=("a", io.BytesIO(b"x" * 1000)), purpose="user_data")
    assert refused(files.create, file=("b", io.BytesIO(b"x" * 600)), purpose="user_data")[:2] == (413, "storage_full")
    assert refused(files.create, file=("b", io.BytesIO(b"x")), purpose="batch")[:2] == (400, "invalid_value")
    assert len(list(served.service.files.folder.iterdir())) == 1
    assert served.service.files.taken == 1000
