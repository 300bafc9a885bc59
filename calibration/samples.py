"""Clips to calibrate on: out of a folder of videos or images, with the runtime's own decoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.proof.question_file import read_questions
from storm_edge.runtime.video.folder import IMAGES
from storm_edge.runtime.video.reading import read_frames

Frames = NDArray[np.uint8]
# Questions and notes lie beside videos; what else lies there is meant to be read, and refused if it cannot be.
_NOT_VIDEOS = {".json", ".jsonl", ".txt", ".md", ".csv", ".srt", ".vtt"}


def clips_of_folder(folder: Path, *, samples: int, frames: int, size: int) -> Iterator[Frames]:
    """`samples` clips uint8 [frames, size, size, 3], as many from every video, one after another and evenly spread.

    A video is a file, a folder of images, or the images that lie in `folder` itself. Raises UsageError where there is
    none, VideoError for one that cannot be read.
    """
    videos = find_videos(folder)
    for i, video in enumerate(videos):
        share = samples * (i + 1) // len(videos) - samples * i // len(videos)
        if share:
            yield from _cut(video, share, frames, size)


def find_videos(folder: Path) -> list[Path]:
    """The videos of a folder in the order of their names; raises UsageError where it is none, or has none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: give one with videos or images.")
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    files = [p for p in entries if p.is_file() and p.suffix.lower() not in _NOT_VIDEOS]
    found = [p for p in files if p.suffix.lower() not in IMAGES]
    found += [p for p in entries if p.is_dir() and any(q.suffix.lower() in IMAGES for q in p.iterdir())]
    if len([p for p in files if p.suffix.lower() in IMAGES]) > 0:
        found.append(folder)
    if not found:
        raise UsageError(f"{folder} holds no videos and no images: name another folder.")
    return found


def _cut(video: Path, clips: int, frames: int, size: int) -> Iterator[Frames]:
    # Evenly spread over the whole video, then cut: neighbours in a clip are neighbours in the video.
    for batch in read_frames(video, size=size, frames=clips * frames, batch=frames):
        yield batch.frames


def questions_of_folder(folder: Path, *, frames: int, size: int) -> Iterator[tuple[Frames, str]]:
    """Clips uint8 [frames, size, size, 3] with the questions of the folder's .jsonl files, as `storm eval` asks them.

    Raises UsageError for lines that are no questions, VideoError for a video that cannot be read.
    """
    for item in read_questions(folder):
        (clip,) = read_frames(item.video, size=size, frames=frames, batch=frames)
        yield clip.frames, item.prompt
