from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_the_page_of_plans_is_what_its_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "benchmarks" / "plan.py"), run_name="__main__")
    assert capsys.readouterr().out == (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
