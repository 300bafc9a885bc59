"""Full disks and folders that cannot be written to: one line, and what was there stays."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storm_edge.runtime.bundle.manifest import Bundle

STORM = Path(sys.executable).parent / "storm"


def storm(*arguments: object, largest: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run; no file may become larger than `largest` bytes, as on a disk that fills up."""

    def limit() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    return subprocess.run([STORM, *map(str, arguments)], capture_output=True, text=True, preexec_fn=limit)


def failed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    return done.stderr


def test_a_checkpoint_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    message = failed(storm("init", "storm-mini", "-o", tmp_path / "checkpoint", largest=100_000))
    assert f"{tmp_path / 'checkpoint'}: File too large" in message
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_does_not_fit_leaves_the_one_before(
    checkpoint: Path, bundle: Path, copy_of: Callable[[Path], Path]
) -> None:
    copy = copy_of(bundle)
    assert "File too large" in failed(storm("export", checkpoint, "-o", copy, "--force", largest=100_000))
    assert [p.name for p in copy.parent.iterdir()] == [copy.name]
    Bundle.open(copy).check_hashes()


def test_an_engine_that_does_not_fit_leaves_none(bundle: Path, copy_of: Callable[[Path], Path]) -> None:
    copy = copy_of(bundle)
    shutil.rmtree(copy / "engines")
    assert "File too large" in failed(storm("build", copy, "--target", "cpu", largest=1000))
    assert list((copy / "engines").iterdir()) == []


def test_a_place_where_nothing_can_be_made_is_one_line(checkpoint: Path) -> None:
    for output in ("/proc/storm", checkpoint / "config.json" / "bundle"):
        failed(storm("init", "storm-mini", "-o", output))
        failed(storm("export", checkpoint, "-o", output))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "correct the permissions" in failed(storm("init", "storm-mini", "-o", tmp_path / "checkpoint"))


def test_a_terminated_command_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([STORM, "init", "storm-1.5b", "-o", tmp_path / "checkpoint"], stderr=subprocess.PIPE)
    while not list(tmp_path.iterdir()):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    assert process.communicate()[1].split() == [b"stopped"]
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
