from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file

from storm_edge.cli.export import command
from storm_edge.demo.dataset import samples
from storm_edge.export.export_bundle import export_bundle
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.video.encode import encode_video


def _export(checkpoint: Path, output: Path, clips: str) -> Result:
    switches = {"verbose": False, "quiet": False}
    return CliRunner().invoke(command, [str(checkpoint), "-o", str(output), "--clips", clips], obj=switches)


def _frames(bundle: Path) -> list[np.ndarray]:
    return [load_file(clip)["frames"] for clip in sorted((bundle / "reference").iterdir())]


def test_the_record_is_made_of_the_clips_that_are_given(checkpoint: Path, tmp_path: Path) -> None:
    assert _export(checkpoint, tmp_path / "demo", "demo").exit_code == 0
    made = samples(frames=16, size=64, split="train")
    for clip in _frames(tmp_path / "demo"):
        np.testing.assert_array_equal(clip, next(made).frames)
    folder = tmp_path / "videos"
    folder.mkdir()
    encode_video(folder / "a.mp4", next(made).frames, fps=8)
    assert _export(checkpoint, tmp_path / "own", str(folder)).exit_code == 0
    assert [clip.shape for clip in _frames(tmp_path / "own")] == [(16, 64, 64, 3)] * 3


def test_a_folder_without_videos_is_refused_and_nothing_is_written(checkpoint: Path, tmp_path: Path) -> None:
    done = _export(checkpoint, tmp_path / "bundle", str(tmp_path))
    assert isinstance(done.exception, UsageError)
    assert "holds no videos" in str(done.exception)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("shape", [(16, 32, 32, 3), (3, 64, 64, 3)])
def test_clips_that_the_model_cannot_see_are_refused(checkpoint: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="the model sees 64 x 64 pixels and pools 4 frames"):
        export_bundle(checkpoint, tmp_path / "bundle", clips=lambda _: [(np.zeros(shape, np.uint8), "What?")])
