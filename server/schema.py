"""Requests as OpenAI's clients send them. What would have no effect is refused by its name.

Chat completions: platform.openai.com/docs/api-reference/chat; `video_url` and `media_io_kwargs` as in vLLM.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_MESSAGES, MOST_PARTS, MOST_IMAGES = 512, 64, 1024
Frames = Annotated[int, Field(ge=1, description="Frames to look at.")]
Fps = Annotated[float, Field(gt=0, le=1000, description="Frames a second to look at.")]
Sample = Annotated[int, Field(ge=1, le=1024, description="Keep every n-th pooled frame.")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Url(_Strict):
    """A data: URL, a file:// URL under a media root, the id of an uploaded file, or stream: and the id of a stream."""

    url: str
    detail: Literal["auto"] | None = None


class TextPart(_Strict):
    """Words."""

    type: Literal["text"]
    text: str


class VideoPart(_Strict):
    """A video. With `fps` and `max_frames` it is looked at `fps` times a second, at most so many times."""

    type: Literal["video_url"]
    video_url: Url
    fps: Fps | None = None
    max_frames: Frames | None = None
    sample: Sample | None = None


class ImagePart(_Strict):
    """One image."""

    type: Literal["image_url"]
    image_url: Url


class FramesPart(_Strict):
    """A video as its frames, `fps` of them a second; of more than `max_frames` some are looked at, evenly spread."""

    type: Literal["video"]
    video: Annotated[list[str], Field(min_length=1, max_length=MOST_IMAGES)]
    fps: Fps | None = None
    max_frames: Frames | None = None
    sample: Sample | None = None


Part = Annotated[TextPart | VideoPart | ImagePart | FramesPart, Field(discriminator="type")]


class ChatMessage(_Strict):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1, max_length=MOST_PARTS)]
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None


class VideoSampling(_Strict):
    """vLLM's options of its video reader."""

    num_frames: Frames | None = None
    fps: Fps | None = None


class MediaOptions(_Strict):
    """vLLM's options of its readers, by kind."""

    video: VideoSampling | None = None


class StreamOptions(_Strict):
    """What a stream carries."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class TextFormat(_Strict):
    """Plain text."""

    type: Literal["text"]


class ChatRequest(_Strict):
    """A question about a video."""

    model: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, description="0, the default, takes the likeliest token.")] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    stop: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(max_length=16)] | None = None
    user: Annotated[str, Field(max_length=256, description="Takes turns with other users.")] | None = None
    media_io_kwargs: MediaOptions | None = None
    storm: Annotated[list[Literal["frames"]], Field(description="What to send beside the answer.")] | None = None
    # Of these only the values that ask for nothing are taken.
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    response_format: TextFormat | None = None
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None


class StreamRequest(_Strict):
    """A live video to watch: its frames, `fps` a second, of which an answer is about the last `window`."""

    source: Annotated[str, Field(min_length=1, max_length=4096)]
    fps: Annotated[float, Field(gt=0, le=60)] = 2
    window: Annotated[int, Field(ge=1)] = 64
    sample: Sample | None = None


# Fields in which a client may only say that it asks for nothing.
NEUTRAL = (
    "n",
    "logprobs",
    "top_logprobs",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "tools",
    "tool_choice",
    "response_format",
    "modalities",
    "store",
)
