"""Opening a file on the local disk so that it can open nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from storm_edge.runtime.errors import VideoError

# Formats that hold their pictures themselves. Playlists and scripts (hls, dash, concat, image sequences, subtitles...)
# name other files or hosts and are left out; sound formats are in so that they are refused for the right reason.
_FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,ivf,obu,h264,hevc,m4v,mjpeg,nut,yuv4mpegpipe,mxf,"
    "gif,apng,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,jpegxl_pipe,wav,mp3,flac,aac"
)

# Pixels of one frame: an image's, and a video's, of which a decoder keeps up to seventeen. libav is told so before it
# makes room for any. 8192 x 8192 and 8192 x 4320.
MAX_IMAGE_PIXELS, MAX_VIDEO_PIXELS = 1 << 26, 8192 * 4320
_STILL = ("_pipe", "gif", "apng")  # how the names of formats end that hold images
# Above, every thread that decodes frames of its own would keep more of them than the speed is worth.
_FRAME_THREADS_PIXELS = 4096 * 2160


def check_file(path: Path) -> None:
    """Raises VideoError unless `path` is a file with something in it."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise VideoError(f"there is no file {path}: check the path.") from error
    except OSError as error:
        raise VideoError(f"cannot read {path}: {error.strerror}; check its permissions.") from error
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(f"{path} is not a file: name one video file.")
    if not status.st_size:
        raise VideoError(f"{path} is empty: copy or download it again.")


def open_video(path: Path) -> tuple[IO[bytes], InputContainer, VideoStream]:
    """The open file, its container and its first stream of pictures; close both. Raises VideoError."""
    check_file(path)
    try:
        # What became a pipe since then does not wait for somebody who writes.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0)
    except OSError as error:
        raise VideoError(f"cannot read {path}: {error.strerror}; check its permissions.") from error
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise VideoError(f"{path} is not a file: name one video file.")
        return file, *_open_stream(path, file)
    except BaseException:
        file.close()
        raise


def _open_stream(path: Path, file: IO[bytes]) -> tuple[InputContainer, VideoStream]:
    try:
        container = av.open(
            _Bytes(file),
            "r",
            metadata_errors="replace",
            options={"max_pixels": str(MAX_IMAGE_PIXELS)},
            # No protocol has this name, so that nothing else is opened, whatever the file refers to.
            container_options={"format_whitelist": _FORMATS, "protocol_whitelist": "none"},
        )
    except (FFmpegError, OSError, MemoryError) as error:
        raise VideoError(
            f"{path} is not a video that can be read here: it is damaged, cut short or of an unknown format; "
            f"MP4, MKV, WebM, AVI, MPEG, GIF, PNG and JPEG work."
        ) from error
    return container, picture_stream(container, path)


def picture_stream(container: InputContainer, path: object) -> VideoStream:
    """The first stream of pictures; raises VideoError, and closes the container, where there is none of a sane size."""
    # Cover art of music is a video stream too.
    pictures = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    stream = next((stream for stream in pictures if stream.codec_context is not None), None)
    if stream is None:
        container.close()
        if pictures:
            raise VideoError(f"{path} is compressed by a codec unknown here: convert it to H.264 in MP4.")
        raise VideoError(f"{path} holds no pictures, only sound or data: name a video file.")
    still = any(name.endswith(_STILL) for name in container.format.name.split(","))
    most = MAX_IMAGE_PIXELS if still else MAX_VIDEO_PIXELS
    pixels = stream.codec_context.width * stream.codec_context.height
    if pixels > most:
        container.close()
        raise VideoError(f"the frames of {path} have {pixels:,} pixels: scale it to at most {most:,}.")
    stream.codec_context.options = {"max_pixels": str(most)}
    stream.thread_type = "AUTO" if pixels <= _FRAME_THREADS_PIXELS else "SLICE"
    return stream


def unreadable(source: object) -> VideoError:
    """What is said of a file none of whose frames can be decoded; libav does not tell damage from size."""
    return VideoError(
        f"no frame of {source} can be read: it is empty, damaged, cut short, or larger than {MAX_IMAGE_PIXELS:,} pixels"
        f" (a video: {MAX_VIDEO_PIXELS:,})."
    )


class _Bytes:
    """A file without its name, in which libav would look for patterns and protocols."""

    def __init__(self, file: IO[bytes]) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell
