from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
from click.testing import CliRunner, Result

from storm_edge.cli.build import command as build
from storm_edge.cli.eval import command as evaluate
from storm_edge.cli.verify import command as verify
from storm_edge.runtime.errors import UsageError


def run(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], obj={"quiet": False, "verbose": False})


def test_a_simulated_engine_is_built_verified_and_evaluated(calibrated: Path, copy_of: Callable[[Path], Path]) -> None:
    root = copy_of(calibrated)
    built = run(build, root, "--target", "h100", "--precision", "fp8", "--simulate", "--threads", 1)
    assert built.exit_code == 0, built.exception
    name = "h100-fp8-llm-bf16-simulated"
    assert f"engines/{name}: " in built.stdout
    checked = json.loads(run(verify, root, "--engine", name, "--threads", 1, "--json").stdout)
    assert (checked["engine"], checked["passed"]) == (name, True)
    given = ["--data", "demo", "-n", 2, "--frames", 8, "--threads", 1, "--json"]
    report = json.loads(run(evaluate, root, "--engine", name, *given).stdout)
    assert (report["engine"], report["questions"]) == (name, 2)
    assert report["logit_divergence"]["kl"] > 1e-7


def test_options_that_a_simulation_does_not_read_are_refused(bundle: Path) -> None:
    for option in (["--tensorrt", "10.3"], ["--stages", "vision"], ["--prepare-only"]):
        failed = run(build, bundle, "--target", "h100", "--precision", "fp8", "--simulate", *option)
        assert isinstance(failed.exception, UsageError)
        assert f"{option[0]} is for what TensorRT compiles: leave it out with --simulate" in str(failed.exception)
