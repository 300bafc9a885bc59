from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from storm_edge.export.reference import asking
from storm_edge.runtime import load
from storm_edge.runtime.bench import ask_engine
from storm_edge.runtime.bench.peer import Peer
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.video.encode import encode_video


def command(checkpoint: Path, video: Path, *more: str) -> list[str]:
    words = ["--video", str(video), "--temporal-pool", "4", "--spatial-pool", "1", "--tokens", "3", *more]
    return [sys.executable, "-m", asking.__name__, str(checkpoint), *words]


def test_pytorch_is_asked_the_same_as_an_engine(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    encode_video(clip, np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
    with Peer("PyTorch", command(checkpoint, clip)) as torch:
        theirs = torch.ask(10)
        with pytest.raises(UsageError, match="PyTorch: frames is 0"):
            torch.ask(0)
    ours = ask_engine(load(bundle), clip, 3, 10)
    assert (theirs.visual_tokens, theirs.prompt_tokens) == (ours.visual_tokens, ours.prompt_tokens)
    assert len(theirs.tokens) == 2
    assert sum(theirs.seconds.values()) <= theirs.first_token <= theirs.total
    assert theirs.peak_memory_bytes > 0


def test_a_missing_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="PyTorch: "):
        Peer("PyTorch", command(tmp_path / "none", tmp_path / "clip.mp4"))
