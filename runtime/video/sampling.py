"""Which frames are shown at which times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Generic, Protocol, TypeVar

Payload = TypeVar("Payload")

# Half a tick of Matroska's clock: its frame at 67 ms is the one meant by 2/30 s. For files and arrays alike.
TOLERANCE = 0.5e-3  # seconds


@dataclass(frozen=True)
class Shot(Generic[Payload]):
    """A frame and the time it appears, in seconds."""

    time: float
    frame: Payload


class Source(Protocol[Payload]):
    """Something that shows frames."""

    def shots(self) -> Iterator[Shot[Payload]]:
        """All frames, in order of time."""

    def span(self) -> tuple[float, float]:
        """When the first and the last frame appear."""

    def skip(self, now: float, time: float) -> Iterator[Shot[Payload]] | None:
        """What follows, from later than `now` but not later than `time`; None if reading on is as good."""


def spread(first: float, last: float, number: int) -> Iterator[float]:
    """`number` times, evenly from `first` to `last`."""
    step = (last - first) / max(number - 1, 1)
    return (first + step * i for i in range(number))


def paced(first: float, fps: float) -> Iterator[float]:
    """first, first + 1/fps, first + 2/fps, without end."""
    pace = Fraction(fps)
    return (first + float(i / pace) for i in count())


def shown_at(
    times: Iterable[float],
    shots: Iterator[Shot[Payload]],
    *,
    until_end: bool,
    skip: Callable[[float, float], Iterator[Shot[Payload]] | None],
    near: Callable[[float], Shot[Payload] | None] = lambda _: None,
) -> Iterator[Shot[Payload]]:
    """For each of the ascending `times`, the last shot that appeared by then; one look ahead, nothing else is kept.

    `until_end` stops at the first time after the last shot; else the last shot stays. `skip` is the source's; what
    `near` has for a time is taken instead.
    """
    current = next(shots, None)
    if current is None:
        return
    ahead = next(shots, None)
    for time in times:
        snapped = near(time)
        if snapped is not None:
            yield snapped
            continue
        asked = False
        while ahead is not None and ahead.time <= time + TOLERANCE:
            current = ahead
            if not asked:
                asked = True
                shots = skip(current.time, time) or shots
            ahead = next(shots, None)
        if until_end and ahead is None and time > current.time + TOLERANCE:
            return
        yield current
