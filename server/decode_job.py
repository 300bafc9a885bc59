"""What the decoding process is told and what it sends back: see `decoder` and `decode_child`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

# A message back is one letter, its length in four bytes, and so much content.
FRAMES, PICTURE, DONE, UNREADABLE, REFUSED = b"F", b"J", b"D", b"V", b"U"
HEADER = 5
MESSAGE = 1 << 16  # bytes of a job; a list of a thousand images is a tenth of it


@dataclass(frozen=True)
class Sampling:
    """Which frames are looked at: `frames` evenly spread, or `fps` a second and of those at most `most`.

    Without any at most the runtime's usual number, none twice. `rate` says how many of a list of images are a second.
    """

    frames: int | None = None
    fps: float | None = None
    most: int | None = None
    sample: int | None = None
    rate: float | None = None


@dataclass(frozen=True)
class DecodeJob:
    """One video: the file is one of pictures that move, or `images` of so many bytes each, one after the other."""

    size: int  # of the model's square
    batch: int
    limit: int  # frames
    seconds: int  # by the clock, and of each processor
    memory: int
    sampling: Sampling
    images: tuple[int, ...] = ()

    def encoded(self) -> bytes:
        """As bytes to send."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decoded(cls, message: bytes) -> DecodeJob:
        """What `encoded` made bytes of."""
        fields = json.loads(message)
        return cls(**fields | {"sampling": Sampling(**fields["sampling"]), "images": tuple(fields["images"])})
