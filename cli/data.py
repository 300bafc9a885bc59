"""What --data and --clips name: the demo, or a folder. Nothing else tells the two apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from storm_edge.runtime.errors import UsageError

if TYPE_CHECKING:
    from storm_edge.calibration.analysis import Asked
    from storm_edge.calibration.counting import Clips, Frames
    from storm_edge.export.export_bundle import ClipSource
    from storm_edge.runtime.proof.evaluate import Item

DEMO = "demo"
DEMO_QUESTIONS = 200  # asked of the demo's, which have no end, where no number is given


def data_of(text: str) -> Demo | Folder:
    """What `text` names; raises UsageError where it is neither the demo nor a folder."""
    if text == DEMO:
        return Demo()
    if not Path(text).is_dir():
        raise UsageError(f"{text} is no folder: give one with videos or images, or `{DEMO}`.")
    return Folder(Path(text))


@dataclass(frozen=True)
class Demo:
    """The demo's clips and questions. It is evaluated on its test split; everything else sees the training split."""

    name: str = DEMO
    has_questions: bool = True

    def clips(self, samples: int, frames: int, size: int) -> Clips:
        """Clips uint8 [frames, size, size, 3] to calibrate on."""
        return lambda: islice((clip for clip, _ in self._training(frames, size)), samples)

    def asked(self, frames: int, size: int) -> Asked:
        """Such clips, each with a question, without end."""
        return lambda: self._training(frames, size)

    def recorded(self, clips: int, frames: int) -> ClipSource:
        """What an export records: clips with a question each, at the model's size."""
        return lambda size: islice(self._training(frames, size), clips)

    def items(self, frames: int | None, number: int | None, size: int) -> tuple[Iterator[Item], int, int]:
        """The questions to ask, the frames to look at, and how many questions there are."""
        from storm_edge.demo.items import FRAMES, demo_items

        frames, number = frames or FRAMES, number or DEMO_QUESTIONS
        return islice(demo_items(frames=frames, size=size), number), frames, number

    def _training(self, frames: int, size: int) -> Iterator[tuple[Frames, str]]:
        from storm_edge.demo.dataset import samples

        for sample in samples(frames=frames, size=size, split="train"):
            yield sample.frames, sample.question.text


@dataclass(frozen=True)
class Folder:
    """Videos or images, with or without questions beside them as JSON Lines."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's own."""
        return self.path.resolve().name

    @property
    def has_questions(self) -> bool:
        """Whether there is a file of them."""
        return any(self.path.glob("*.jsonl"))

    def clips(self, samples: int, frames: int, size: int) -> Clips:
        """Clips uint8 [frames, size, size, 3] to calibrate on; raises UsageError where there are no videos."""
        from storm_edge.calibration.samples import clips_of_folder, find_videos

        find_videos(self.path)  # refuses a wrong folder before graphs are loaded
        return lambda: clips_of_folder(self.path, samples=samples, frames=frames, size=size)

    def asked(self, frames: int, size: int) -> Asked:
        """Such clips with the folder's questions; raises UsageError for lines that are none."""
        from storm_edge.calibration.samples import questions_of_folder

        next(iter(questions_of_folder(self.path, frames=frames, size=size)), None)  # refuses wrong lines early
        return lambda: questions_of_folder(self.path, frames=frames, size=size)

    def recorded(self, clips: int, frames: int) -> ClipSource:
        """What an export records: clips with a question each, at the model's size."""
        from storm_edge.calibration.samples import clips_of_folder, find_videos
        from storm_edge.export.export_bundle import QUESTIONS

        find_videos(self.path)  # refuses a wrong folder before weights are loaded
        return lambda size: zip(
            clips_of_folder(self.path, samples=clips, frames=frames, size=size), QUESTIONS, strict=False
        )

    def items(self, frames: int | None, number: int | None, size: int) -> tuple[Iterator[Item], int | None, int | None]:
        """The questions to ask, the frames to look at, and how many questions there are, if that is known."""
        from storm_edge.runtime.proof.question_file import read_questions

        return islice(read_questions(self.path), number), frames, number
