from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from storm_edge.runtime.answer.stages import Encoders
from storm_edge.runtime.answer.temporal import TemporalEncoder
from storm_edge.runtime.sessions.device import HOST, Device


@dataclass
class Counting:
    """A session whose tokens are the numbers of its frames; it takes one frame first, and then three at once."""

    device: Device = HOST
    batch: int = 1
    given: list[int] = field(default_factory=list)

    def run(self, **inputs: Any) -> dict[str, Any]:
        self.batch = 3
        frames = inputs.get("frames")
        if frames is None:
            return {"visual_tokens": np.array(inputs["tokens"])}
        self.given.append(len(frames))
        return {"tokens": frames[:, :1, 0, :1].astype(np.float32)}


def test_every_frame_is_encoded_once_though_the_batch_grows_on_the_way() -> None:
    frames = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1).repeat(3, axis=3)
    vision = Counting()
    tokens = Encoders(vision, TemporalEncoder(Counting()), 4).vision(frames)
    assert vision.given == [1, 3, 3, 1]
    np.testing.assert_array_equal(HOST.host(tokens)[:, 0, 0], np.arange(8))


def test_the_last_frame_fills_up_the_last_group() -> None:
    tokens = np.arange(6, dtype=np.float32).reshape(6, 1, 1)
    visual = HOST.host(Encoders(Counting(), TemporalEncoder(Counting()), 4).temporal(tokens))
    np.testing.assert_array_equal(visual[0, :, 0, 0], [0, 1, 2, 3, 4, 5, 5, 5])
