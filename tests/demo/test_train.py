from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from storm_edge.demo import train


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; from storm_edge.demo.train import main; sys.argv = ['train', '--help']\n"
        "try: main()\nexcept SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--save-every" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_what_is_missing_is_said_before_anything_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "-o", str(tmp_path / "run")])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="training needs PyTorch and matplotlib"):
        train.main()
    assert list(tmp_path.iterdir()) == []
