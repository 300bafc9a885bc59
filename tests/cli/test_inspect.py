from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result

from storm_edge.cli.inspect import command
from storm_edge.runtime.errors import BuildError


def inspect(bundle: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, [str(bundle), *arguments], obj={"quiet": False, "verbose": False})


def test_calibrations_are_listed(bundle: Path, calibrated: Path, copy_of: Callable[[Path], Path]) -> None:
    assert "calibrations: none: storm calibrate" in inspect(bundle).stdout
    facts = json.loads(inspect(calibrated, "--json").stdout)
    layers = "of 31 layers are quantized 31 in uint8, 31 in int8, 31 in fp8"
    assert facts["calibrations"] == {"clips": f"minmax of 8 clips, {layers}"}
    damaged = copy_of(calibrated)
    (damaged / "calibration" / "clips" / "layers.json").write_text("[]")
    failed = inspect(damaged)
    assert isinstance(failed.exception, BuildError)
    assert "layers.json is damaged" in str(failed.exception)


def test_a_checkpoint_is_described(checkpoint: Path, copy_of: Callable[[Path], Path]) -> None:
    facts = json.loads(inspect(checkpoint, "--json").stdout)
    assert facts["config"]["llm"]["vocab_size"] == 4096
    assert set(facts["parts"]) == {"vision", "temporal", "language"}
    copy = copy_of(checkpoint)
    (copy / "temporal.safetensors").unlink()
    assert "missing: temporal.safetensors is missing" in inspect(copy).stdout
