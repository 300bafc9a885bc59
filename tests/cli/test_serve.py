from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from storm_edge.cli.serve import SIZE

STORM = Path(sys.executable).parent / "storm"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "give --api-key-file, or --insecure"),
        (["--host", "example.org"], "give --api-key-file, or --insecure"),
        (["--media-root", "nowhere"], "nowhere is no folder"),
        (["--api-key-file", "nowhere"], "nowhere cannot be read"),
        (["--api-key-file", "empty"], "has no key"),
        (["--api-key-file", "short"], "under 16 characters"),
        (["--max-upload", "much"], "is no size"),
        (["--queue", "-1"], "-1 is not in the range"),
        (["--port", "99999"], "is not in the range"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    bundle: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "short").write_text("password\n")
    done = subprocess.run([STORM, "serve", bundle, *options], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


def test_sizes_are_read_as_they_are_said() -> None:
    assert [SIZE.convert(text, None, None) for text in ("5", "2 KiB", "1.5MiB", "3GB", "7b")] == [
        5,
        2048,
        3 << 19,
        3 * 10**9,
        7,
    ]
    for wrong in ("", "much", "1 TiBs", "-1", "inf GiB", "nan"):
        with pytest.raises(click.BadParameter):
            SIZE.convert(wrong, None, None)
