"""What a user installs: the wheel's contents, and a runtime without the export packages."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from storm_edge.demo.encode import encode_video
from storm_edge.runtime.targets import support_matrix

ROOT = Path(__file__).parent.parent
FOLDERS = ("plugins", "runtime", "export", "calibration", "demo", "cli")


def test_the_wheel_holds_every_module(tmp_path: Path) -> None:
    source = tmp_path / "source"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    files = [f for f in listed.stdout.splitlines() if (ROOT / f).is_file()]
    assert files
    for name in files:  # a copy, because setuptools leaves a build folder in its source
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        ".",
    ]
    subprocess.run(command, cwd=source, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    modules = {f"storm_edge/{f}" for f in files if f.endswith((".py", "py.typed")) and f.split("/")[0] in FOLDERS}
    assert modules - held == set()


WITHOUT = """
import sys
for name in ("torch", "transformers", "onnx", "onnxscript"):
    sys.modules[name] = None  # importing it now raises ImportError
from storm_edge.cli import main
sys.argv = ["storm", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("verb", ["run", "verify", "inspect", "doctor"])
def test_the_runtime_works_without_torch_transformers_and_onnx(verb: str, bundle: Path, tmp_path: Path) -> None:
    arguments = {
        "run": [bundle, tmp_path / "a.mp4", "Which way?"],
        "verify": [bundle],
        "inspect": [bundle],
        "doctor": [],
    }
    if verb == "run":
        encode_video(tmp_path / "a.mp4", np.zeros((16, 64, 64, 3), dtype=np.uint8))
    command = [sys.executable, "-c", WITHOUT, verb, *map(str, arguments[verb])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_readme_has_the_support_matrix_of_the_target_table() -> None:
    assert support_matrix() in (ROOT / "README.md").read_text(encoding="utf-8")
