"""What the side-by-side reports run: one checkpoint of random weights, as a bundle with engines, and as peers take it.

Speed does not depend on the weights, and accuracy is not claimed; int8 and int4 engines of random weights may miss
verification, which is recorded in them and does not stop the reports. Every step is done once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from models import edge, quarter_edge

from storm_edge.runtime.config.schema import StormConfig

ROOT = Path(__file__).parents[2]
MODELS: dict[str, Callable[[], StormConfig]] = {"edge": edge, "quarter": quarter_edge}
CALIBRATION, CALIBRATION_CLIPS = "demo", 8
# Encoders' and language model's precision -> the engine's name.
ENGINES = {
    ("fp32", "fp32"): "cpu-fp32",
    ("fp32", "int4"): "cpu-fp32-llm-int4",
    ("int8", "int4"): "cpu-int8-llm-int4",
    ("fp32", "int8"): "cpu-fp32-llm-int8",
}
CLIP_FRAMES, PIECE, CLIP_HEIGHT, CLIP_WIDTH = 512, 32, 720, 1280


@dataclass(frozen=True)
class Workplace:
    """The folder of a model's files, and where each is."""

    folder: Path
    model: str

    @classmethod
    def of(cls, model: str) -> Workplace:
        """Of one of MODELS, below build/."""
        return cls(ROOT / "build" / "bench" / model, model)

    @property
    def config(self) -> StormConfig:
        """The model's shape."""
        return MODELS[self.model]()

    @property
    def checkpoint(self) -> Path:
        """As `storm init` writes it."""
        return self.folder / "checkpoint"

    @property
    def bundle(self) -> Path:
        """With ENGINES."""
        return self.folder / "bundle"

    @property
    def clip(self) -> Path:
        """A video of 512 frames, H.264, 1280 x 720; the same for every model."""
        return self.folder.parent / "clip.mp4"

    @property
    def gguf(self) -> Path:
        """The folder of the language model's GGUF files."""
        return self.folder / "gguf"

    @property
    def genai(self) -> Path:
        """The folder of onnxruntime-genai's models."""
        return self.folder / "genai"


def make_checkpoint(place: Workplace) -> None:
    """Random weights."""
    from storm_edge.export.initialize import initialize

    if not place.checkpoint.exists():
        initialize(place.config, place.checkpoint)


def make_bundle(place: Workplace) -> None:
    """The bundle with its calibration and engines. One short reference clip: what is measured is speed."""
    from storm_edge.calibration.calibrate import calibrate
    from storm_edge.demo.dataset import samples
    from storm_edge.export.build.build import build
    from storm_edge.export.build.options import BuildOptions
    from storm_edge.export.export_bundle import export_bundle, synthetic_frames
    from storm_edge.runtime.bundle.engine import engine_names
    from storm_edge.runtime.bundle.manifest import Bundle
    from storm_edge.runtime.machine.targets import target

    size = place.config.vision.image_size
    if not place.bundle.exists():
        clips = [(synthetic_frames(8, size, seed=0), "What happens?")]
        export_bundle(place.checkpoint, place.bundle, clips=lambda _: clips, progress=_say)
    bundle = Bundle.open(place.bundle)
    for (precision, llm), name in ENGINES.items():
        if name in engine_names(bundle):
            continue
        if precision == "int8" and not (place.bundle / "calibration" / CALIBRATION).exists():
            seen = [s.frames for s in islice(samples(frames=8, size=size, split="train"), CALIBRATION_CLIPS)]
            # Every layer: what verification would leave out says nothing about random weights.
            calibrate(bundle, seen.__iter__, CALIBRATION, samples=CALIBRATION_CLIPS, budget=math.inf)
        build(bundle, target("cpu"), BuildOptions(precision, llm, allow_mismatch=True))
        print(f"built {name}", file=sys.stderr, flush=True)


def _say(step: str) -> None:
    print(step, file=sys.stderr, flush=True)


def make_clip(place: Workplace) -> None:
    """Clips of the demo's, one after the other, between the dark sides of a frame of 720 lines."""
    from storm_edge.demo.dataset import make_sample
    from storm_edge.runtime.video.encode import encode_video

    def frames() -> Iterator[NDArray[np.uint8]]:
        wide = np.zeros((CLIP_HEIGHT, CLIP_WIDTH, 3), np.uint8)
        left = (CLIP_WIDTH - CLIP_HEIGHT) // 2
        for seed in range(CLIP_FRAMES // PIECE):
            for frame in make_sample(seed, frames=PIECE, size=CLIP_HEIGHT // 2).frames:
                wide[:, left : left + CLIP_HEIGHT] = frame.repeat(2, 0).repeat(2, 1)
                yield wide

    if not place.clip.exists():
        encode_video(place.clip, frames(), fps=8, options={"preset": "veryfast"})


STEPS = {"checkpoint": make_checkpoint, "clip": make_clip, "bundle": make_bundle}


def main() -> None:
    """Make what is named on the command line of a model, or everything."""
    model, *steps = sys.argv[1:]
    place = Workplace.of(model)
    place.folder.mkdir(parents=True, exist_ok=True)
    for step in steps or STEPS:
        STEPS[step](place)


if __name__ == "__main__":
    main()
