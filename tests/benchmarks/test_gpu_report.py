"""The report's machinery, on commands that do nothing; every report in here is made up by its test."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storm_edge.runtime.machine.matrix import seen_on_gpus, support_matrix, update

ROOT = Path(__file__).parents[2]
NVIDIA_SMI = '#!/bin/sh\necho "Test GPU 9000, 9.0, 999.01, 81559"\n'
ENGINE = {
    "name": "cuda-fp16",
    "target": "cuda",
    "precision": "fp16",
    "llm_precision": "fp16",
    "runners": dict.fromkeys(("vision", "temporal", "decoder"), "onnxruntime-cuda"),
    "verified": True,
    "checks": 37,
    "passed": 37,
    "worst": {"vision": {"cosine": 0.9999, "norm ratio - 1": 1e-4, "max error": 2e-3}},
    "seconds": {"vision": 0.01, "decode": 0.5},
    "counts": {"frames": 32, "visual_tokens": 128},
    "memory": {"peak_memory_bytes": 2**30},
}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


@pytest.fixture
def report(module: Callable[[str], Any]) -> Any:
    return module("gpu_report")


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script in the place of nvidia-smi."""

    def write(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "nvidia-smi").write_text(script)
        (folder / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return write


def python(code: str) -> tuple[tuple[str, ...], ...]:
    return ((sys.executable, "-c", code),)


def gone(process: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its exit status yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("script", ["#!/bin/sh\necho 'No devices were found'\nexit 6\n", "#!/bin/sh\nexit 0\n"])
def test_without_a_gpu_one_line_says_so_and_the_exit_status_is_2(
    script: str, nvidia_smi: Callable[[str], None], tmp_path: Path
) -> None:
    nvidia_smi(script)
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "gpu_report.py"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: nvidia-smi finds no NVIDIA GPU here: run this on a machine that has one.\n"


def test_the_first_gpu_is_what_nvidia_smi_says(report: Any, nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi(NVIDIA_SMI)
    assert report.first_gpu() == {
        "name": "Test GPU 9000",
        "compute_cap": "9.0",
        "driver_version": "999.01",
        "memory.total": "81559",
    }


@pytest.mark.parametrize(
    ("code", "state", "reason", "figures"),
    [
        ("print('noise'); print('{\"passed\": 3}')", "passed", "", {"passed": 3}),
        ("print('compiled')", "passed", "", {}),
        ("print('first'); raise SystemExit('error: there is no nvcc')", "failed", "error: there is no nvcc", {}),
        ('print(\'{"runs": 7, "reason": "scan 7 differs"}\'); exit(1)', "failed", "scan 7 differs", {"runs": 7}),
        ("print('not installed'); exit(77)", "skipped", "not installed", {}),
        ("exit(3)", "failed", "ended with exit status 3", {}),
        ("import os; os.kill(os.getpid(), 11)", "failed", "ended by signal 11", {}),
    ],
)
def test_a_step_ends_by_itself_with_its_reason_and_its_figures(
    code: str, state: str, reason: str, figures: dict[str, Any], report: Any, tmp_path: Path
) -> None:
    outcome = report.run(report.Step("a step", python(code), 30), tmp_path)
    assert (outcome.state, outcome.reason, outcome.figures) == (state, reason, figures)


def test_a_step_that_takes_too_long_is_ended_with_all_it_started(report: Any, tmp_path: Path) -> None:
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
time.sleep(60)
"""
    began = time.monotonic()
    outcome = report.run(report.Step("too long", python(code), 2), tmp_path)
    assert (outcome.state, outcome.reason) == ("timed out", "took more than 2 s")
    assert time.monotonic() - began < 20
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while not gone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(child)


def test_the_commands_of_a_step_share_its_time_and_the_first_failure_ends_it(report: Any, tmp_path: Path) -> None:
    commands = (*python("raise SystemExit('no')"), *python("print('never')"))
    assert report.run(report.Step("two", commands, 30), tmp_path).reason == "no"
    assert "never" not in (tmp_path / "two.log").read_text()
    missing = report.run(report.Step("missing", (("/nowhere/python",),), 30), tmp_path)
    assert (missing.state, missing.reason) == ("failed", "/nowhere/python: No such file or directory")


def test_all_steps_but_those_that_install_take_ten_minutes_at_most(report: Any, module: Callable[[str], Any]) -> None:
    made = report.steps("python3", None, Path("mamba"))
    assert sum(step.limit for step in made if step.counted) <= report.MOST == 600
    assert [step.name for step in made if not step.counted] == ["environment", "mamba_ssm"]
    known = module("gpu_steps").STEPS
    words = [command[2] for step in made for command in step.commands if command[1] == "benchmarks/gpu_steps.py"]
    assert set(words) == set(known)


def test_with_wheels_nothing_is_asked_of_the_network(report: Any) -> None:
    install = report.steps("python3", Path("/wheels"), None)[0].commands[1]
    assert "--no-index" in install
    assert install[install.index("--find-links") + 1] == "/wheels"
    assert "--no-index" not in report.steps("python3", None, None)[0].commands[1]


def test_steps_that_succeed_fail_and_hang_make_a_report_a_page_and_a_matrix(
    report: Any,
    nvidia_smi: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nvidia_smi(NVIDIA_SMI)
    root = tmp_path / "checkout"
    (root / report.VENV / "bin").mkdir(parents=True)
    (root / report.VENV / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (root / report.VENV / "bin" / "python").chmod(0o755)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (root / "README.md").write_text(readme, encoding="utf-8")
    steps = [
        report.Step("demo on cuda", python(f"print({json.dumps({'engines': [ENGINE]})!r})"), 30),
        report.Step("memcheck", python("raise SystemExit('ERROR: 2 errors')"), 30),
        report.Step("racecheck", python("import time; time.sleep(60)"), 1),
    ]
    monkeypatch.setattr(report, "ROOT", root)
    monkeypatch.setattr(report, "steps", lambda *_: steps)
    monkeypatch.setattr(sys, "argv", ["gpu_report.py"])
    assert report.main() == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:3]] == ["demo", "memcheck", "racecheck"]
    assert printed[-1].endswith("README's matrix: passed")
    made = json.loads((root / "docs" / "gpu" / "test-gpu-9000.json").read_text())
    assert [step["state"] for step in made["steps"]] == ["passed", "failed", "timed out"]
    page = (root / "docs" / "gpu" / "test-gpu-9000.md").read_text().splitlines()
    assert page[0] == "# Test GPU 9000"
    assert any(line.startswith("| memcheck | failed |") and "ERROR: 2 errors" in line for line in page)
    assert any(line.startswith("| racecheck | timed out |") for line in page)
    assert "cuda-fp16: verified, 37 of 37 checks passed." in page
    rows = [
        line for line in (root / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| cuda ")
    ]
    assert [f"run on Test GPU 9000, {made['date'][:7]}" in row for row in rows] == [True, True]
    changed = [
        a for a, b in zip(readme.splitlines(), (root / "README.md").read_text().splitlines(), strict=True) if a != b
    ]
    assert {line[:7] for line in changed} == {"| cuda "}


def test_the_newest_report_of_a_verified_engine_counts(tmp_path: Path) -> None:
    def write(name: str, date: str, **engine: object) -> None:
        steps = [{"name": "demo on cuda", "figures": {"engines": [ENGINE | engine]}}, {"name": "x", "figures": {}}]
        (tmp_path / f"{name}.json").write_text(json.dumps({"date": date, "gpu": {"name": name}, "steps": steps}))

    write("old", "2026-11-30")
    write("new", "2027-01-02")
    write("wrong", "2027-02-01", verified=False)
    seen = seen_on_gpus(tmp_path)
    parts = ("vision, temporal", "language model")
    assert seen == {("cuda", part, "onnxruntime-cuda", "fp16"): "run on new, 2027-01" for part in parts}
    assert support_matrix(seen).count("run on new, 2027-01") == 2


def test_a_readme_without_the_table_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# nothing\n")
    with pytest.raises(ValueError, match="has 0 tables"):
        update(tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text() == "# nothing\n"


def test_scans_are_set_beside_the_limits_that_were_measured_and_end_where_memory_does(
    module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bridge:
        """A GPU of 1 TB/s and 1 T exponentials/s with memory for 16,384 tokens."""

        def storm_cuda_exponential_rate(self) -> float:
            return 1e12

        def storm_cuda_bandwidth(self) -> float:
            return 1e12

        def storm_cuda_time_scan(self, dtype: int, batch: int, length: int, *_: int) -> float:
            return length * 1e-6 if length <= 16384 else -1.0

    scan = module("selective_scan_gpu")
    monkeypatch.setattr(scan, "mamba_seconds", lambda length: None)
    found = scan.scans(Bridge())
    assert [(row["length"], row["direction"]) for row in found["scans"]] == [
        (length, direction) for length in (8192, 16384) for direction in ("forward", "reverse")
    ]
    assert found["scans"][0]["floor"] == pytest.approx(8192 * 7168 * 16 / 1e12)
    page = module("gpu_page").page(
        {
            "gpu": {"name": "Test", "compute_cap": "9.0", "driver_version": "1", "memory.total": "1"},
            "machine": {"processor": "x86_64", "cores": 2, "python": "3.11"},
            "date": "2027-01-01",
            "commit": "abc",
            "steps": [{"name": "scan benchmark", "state": "passed", "seconds": 1.0, "reason": "", "figures": found}],
        }
    )
    assert "| 8192 | forward | 8.192 | 57 | 0.940 | 11 | - |" in page.splitlines()


def test_an_engine_that_is_built_and_asked_gives_the_reports_figures(
    module: Callable[[str], Any],
    trained: Path,
    copy_of: Callable[[Path], Path],
    nvidia_smi: Callable[[str], None],
) -> None:
    nvidia_smi("#!/bin/sh\necho 512\n")
    (engine,) = module("gpu_steps")._engine(copy_of(trained), "cpu")["engines"]
    assert set(ENGINE) == set(engine)
    assert (engine["name"], engine["verified"], engine["passed"]) == ("cpu-fp32", True, engine["checks"])
    assert engine["worst"]["vision"]["cosine"] >= 0.999999
    assert {"vision", "temporal", "prefill", "decode"} <= set(engine["seconds"])
    assert engine["counts"]["frames"] == 32
    assert engine["memory"]["in_use_on_the_gpu_bytes"] == 512 * 2**20
