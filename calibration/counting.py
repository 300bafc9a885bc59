"""Counting clip by clip, so that a run that was stopped goes on where it was, if it is given the same clips again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from storm_edge.calibration.methods import MIN_FRAMES
from storm_edge.calibration.observe import Observer, from_arrays, to_arrays
from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.machine.user_folders import write_private

Frames = NDArray[np.uint8]
Clips = Callable[[], Iterable[Frames]]  # the same clips whenever it is called
_SAVE_EVERY = 16  # clips


@dataclass
class Seen:
    """The clips so far: their chained hash, and how many frames differ and are not of one colour."""

    clips: int = 0
    digest: str = ""
    frames: set[bytes] = field(default_factory=set)

    def add(self, clip: Frames) -> None:
        """Count a clip."""
        made_of = self.digest.encode() + str(clip.shape).encode() + clip.tobytes()
        self.clips, self.digest = self.clips + 1, hashlib.sha256(made_of).hexdigest()
        for frame in clip:
            if (frame != frame[0, 0]).any():
                self.frames.add(hashlib.blake2b(frame.tobytes(), digest_size=8).digest())


def count(
    observer: Observer, clips: Clips, samples: int, kept: Path, graphs: str, detail: Callable[[str], None]
) -> Seen:
    """Show the observer `samples` clips; what it counted lies in `kept` meanwhile, with `graphs` to know it by.

    Raises BuildError for clips that are too few or show too little, and what `Observer.add` raises.
    """
    state = _State.read(kept, graphs)
    seen = Seen()
    coming = islice(clips(), samples)
    if state is not None and state.clips <= samples:
        for clip in islice(coming, state.clips):
            seen.add(clip)
        if seen.digest == state.digest:
            from_arrays(observer.histograms, state.arrays)
        else:  # other clips: what was counted does not belong to them
            seen, coming = Seen(), islice(clips(), samples)
    for clip in coming:
        detail(f"{seen.clips + 1} of {samples} clips")
        observer.add(clip)
        seen.add(clip)
        if seen.clips % _SAVE_EVERY == 0 and seen.clips < samples:
            about = {"graphs": graphs, "clips": str(seen.clips), "digest": seen.digest}
            with suppress(OSError):  # a home that cannot be written to: a stopped run begins anew
                write_private(kept, save(to_arrays(observer.histograms), about))
    if seen.clips < samples:
        raise BuildError(
            f"the data gave {seen.clips} clips instead of {samples}: lower --samples, or give more videos."
        )
    if len(seen.frames) < MIN_FRAMES:
        raise BuildError(
            f"only {len(seen.frames)} frames of the data differ and show more than one colour, which says too little"
            f" about real videos: calibrate on at least {MIN_FRAMES}."
        )
    return seen


@dataclass(frozen=True)
class _State:
    """What an earlier run counted before it was stopped."""

    clips: int
    digest: str
    arrays: dict[str, NDArray[Any]]

    @classmethod
    def read(cls, path: Path, graphs: str) -> _State | None:
        """None where there is none, it is damaged, or it is of other graphs."""
        try:
            with safe_open(path, framework="numpy") as f:
                about = f.metadata() or {}
                arrays = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118 # no mapping
            return cls(int(about["clips"]), about["digest"], arrays) if about.get("graphs") == graphs else None
        except (SafetensorError, OSError, KeyError, ValueError):
            return None
