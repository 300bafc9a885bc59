"""`python -m storm_edge.demo FOLDER`: write a demo video and the question about it."""

from __future__ import annotations

import sys
from pathlib import Path

from storm_edge.demo.encode import encode_video
from storm_edge.demo.scene import make_clip


def main() -> None:
    """Write clip.mp4, question.txt and answer.txt (the truth) to the folder named on the command line."""
    folder = Path(sys.argv[1])
    clip = make_clip(seed=0)
    encode_video(folder / "clip.mp4", clip.frames, fps=clip.fps)
    (folder / "question.txt").write_text(clip.question + "\n", encoding="utf-8")
    (folder / "answer.txt").write_text(clip.answer + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
