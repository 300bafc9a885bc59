"""`python -m storm_edge.demo FOLDER`: a demo video with its question, and what a bundle answers to it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from storm_edge.demo.dataset import FPS, make_sample
from storm_edge.runtime.video.encode import encode_video

FRAMES, SIZE = 32, 128  # of the encoded clip; its sides are twice what the demo's model looks at


def main() -> None:
    """Write clip.mp4, question.txt and answer.txt (the truth) to a folder; with --bundle, answer and draw sheet.png."""
    parser = argparse.ArgumentParser(prog="python -m storm_edge.demo", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=2, help="names the clip")
    parser.add_argument("--type", default="order", help="type of the question")
    parser.add_argument("--bundle", type=Path, help="answer the question with this bundle and draw sheet.png")
    parser.add_argument("--engine", help="engine of the bundle; default: the newest verified one for this machine")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    sample = make_sample(given.seed, frames=FRAMES, size=SIZE, kind=given.type)
    question = sample.question
    encode_video(given.folder / "clip.mp4", sample.frames, fps=FPS)
    (given.folder / "question.txt").write_text(question.text + "\n", encoding="utf-8")
    (given.folder / "answer.txt").write_text(question.answer + "\n", encoding="utf-8")
    if given.bundle is not None:
        sys.exit(_answer(given.bundle, given.engine, given.folder, question.text, question.answer))


def _answer(bundle: Path, engine: str | None, folder: Path, question: str, truth: str) -> int:
    """Ask, draw and say; the exit code is 1 for an engine that fails, not for a wrong answer."""
    from storm_edge.demo.sheet import draw_sheet
    from storm_edge.runtime.answer.pipeline import load
    from storm_edge.runtime.errors import StormError
    from storm_edge.runtime.llm.sampling import SamplingOptions
    from storm_edge.runtime.video import read_frames

    try:
        pipeline = load(bundle, engine)
        video = pipeline.open(folder / "clip.mp4", frames=FRAMES)
        answer = video.ask(question, SamplingOptions(max_tokens=16)).read().strip()
        size = pipeline.bundle.config.vision.image_size
        seen = next(read_frames(folder / "clip.mp4", size=size, frames=FRAMES, batch=FRAMES)).frames
    except StormError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    draw_sheet(folder / "sheet.png", seen, video.timestamps, question, answer, truth)
    verdict = "right" if answer == truth else "wrong"
    print(f"question: {question}\nanswer:   {answer} ({verdict}; truth: {truth})\nframes:   {folder / 'sheet.png'}")
    return 0


if __name__ == "__main__":
    main()
