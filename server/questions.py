"""From a request to a question: messages, one video, which frames are looked at, how the answer is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from storm_edge.runtime.llm.prompt import LARGEST_PROMPT, Message
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.server.decode_job import Sampling
from storm_edge.server.errors import RequestError
from storm_edge.server.schema import (
    ChatMessage,
    ChatRequest,
    FramesPart,
    ImagePart,
    MediaOptions,
    Part,
    TextPart,
    VideoPart,
)
from storm_edge.server.sources import Source, Sources
from storm_edge.server.streams import STREAM, LiveClip, Streams

Media = VideoPart | ImagePart | FramesPart


@dataclass(frozen=True)
class Question:
    """What is asked; `param` names the place of the video in the request."""

    messages: list[Message]
    media: Media
    param: str
    sampling: Sampling
    options: SamplingOptions

    def open(self, sources: Sources, streams: Streams) -> Source | LiveClip:
        """The video; raises RequestError."""
        if isinstance(self.media, VideoPart):
            if self.media.video_url.url.startswith(STREAM):
                if self.sampling != Sampling():
                    raise RequestError(
                        400,
                        "the frames of a stream were chosen when it was made: leave fps, frames and sample out.",
                        "unsupported_parameter",
                        self.param,
                    )
                return streams.clip(self.media.video_url.url.removeprefix(STREAM), self.param)
            return sources.video(self.media.video_url.url, self.param)
        if isinstance(self.media, ImagePart):
            return sources.images([self.media.image_url.url], self.param)
        return sources.images(self.media.video, self.param)


def understand(request: ChatRequest, max_frames: int) -> Question:
    """What a request asks; raises RequestError, UsageError."""
    found = [
        (part, f"messages[{i}].content[{j}]", message.role)
        for i, message in enumerate(request.messages)
        if not isinstance(message.content, str)
        for j, part in enumerate(message.content)
        if not isinstance(part, TextPart)
    ]
    if len(found) != 1 or found[0][2] != "user":
        raise RequestError(
            400,
            f"a conversation is about one video, in one of the user's messages; this one has {len(found)}: give it once"
            " as video_url, image_url, or as a list of frames in video.",
            "invalid_value",
            found[1][1] if len(found) > 1 else "messages",
        )
    ((media, param, _),) = found
    messages = [_message(message, media) for message in request.messages]
    if any(message.role == "system" for message in messages[1:]) or messages[-1].role != "user":
        raise RequestError(
            400, "a system message comes first, and the last message is the user's.", "invalid_value", "messages"
        )
    if sum(len(message.text) for message in messages) > LARGEST_PROMPT:
        raise RequestError(400, f"the messages have over {LARGEST_PROMPT} characters.", "invalid_value", "messages")
    return Question(messages, media, param, _sampling(media, request.media_io_kwargs, max_frames), _options(request))


def _message(message: ChatMessage, media: Media) -> Message:
    parts: list[Part] = [] if isinstance(message.content, str) else message.content
    text = message.content if isinstance(message.content, str) else ""
    text += "\n".join(part.text for part in parts if isinstance(part, TextPart))
    return Message(
        "system" if message.role == "developer" else message.role,
        text.encode("utf-8", "replace").decode("utf-8"),  # half a surrogate pair is no text
        video=any(part is media for part in parts),
    )


def _sampling(media: Media, kwargs: MediaOptions | None, max_frames: int) -> Sampling:
    given = kwargs.video if kwargs is not None else None
    if given is not None and not isinstance(media, VideoPart):
        raise RequestError(
            400,
            "media_io_kwargs.video says nothing of images: leave it out.",
            "unsupported_parameter",
            "media_io_kwargs",
        )
    if isinstance(media, ImagePart):
        return Sampling()
    frames = given.num_frames if given is not None else None
    fps = given.fps if given is not None else None
    if (frames is not None and media.max_frames is not None) or (fps is not None and media.fps is not None):
        raise RequestError(
            400,
            "the frames are given twice: in the video's part or in media_io_kwargs.",
            "invalid_value",
            "media_io_kwargs",
        )
    if max(frames or 0, media.max_frames or 0) > max_frames:
        raise RequestError(
            400, f"this server looks at no more than {max_frames} frames (--max-frames).", "invalid_value", "max_frames"
        )
    if isinstance(media, FramesPart):
        return Sampling(rate=media.fps, most=media.max_frames, sample=media.sample)
    fps = fps or media.fps
    if fps is not None:
        return Sampling(fps=fps, most=frames or media.max_frames, sample=media.sample)
    return Sampling(frames=frames, most=media.max_frames, sample=media.sample)


def _options(request: ChatRequest) -> SamplingOptions:
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise RequestError(400, "give max_completion_tokens or max_tokens.", "invalid_value", "max_tokens")
    given = {
        "max_tokens": request.max_completion_tokens or request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "repetition_penalty": request.repetition_penalty,
        "seed": request.seed,
        "stop": request.stop,
    }
    return SamplingOptions(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
