from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from storm_edge.cli.build import command
from storm_edge.runtime.errors import StormError, TargetError, UsageError

Copy = Callable[[Path], Path]


def build(*arguments: object) -> Result:
    switches = {"verbose": False, "quiet": False}
    return CliRunner().invoke(command, [*map(str, arguments)], obj=switches)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("cpu", "--max-frames", 3), UsageError, "--max-frames is for TensorRT targets: leave it out for cpu"),
        (("cpu", "--sm", 86), UsageError, "--sm is for TensorRT targets"),
        (("orin", "--sm", 87), TargetError, "leave --sm out, orin is always SM 87"),
        (("rtx", "--sm", "fast"), UsageError, "'fast' is no compute capability"),
        (("rtx", "--sm", "90"), TargetError, "does not compile for SM 90"),
        (("orin", "--precision", "fp8"), TargetError, "no FP8 units"),
    ],
)
def test_options_that_a_target_has_no_use_for_are_refused(
    arguments: tuple[object, ...], error: type[StormError], words: str, bundle: Path
) -> None:
    done = build(bundle, "--target", *arguments)
    assert isinstance(done.exception, error)
    assert words in str(done.exception)


def test_preparing_for_jetpack_62_prepares_the_whole_model(bundle: Path, copy_of: Copy) -> None:
    root = copy_of(bundle)
    arguments = (root, "--target", "orin", "--tensorrt", "10.3", "--max-length", 512, "--int4-block", 32)
    done = build(*arguments, "--prepare-only", "--json")
    assert done.exit_code == 0, done.exception
    record = json.loads(done.stdout)
    assert (record["name"], record["llm_api"]) == ("orin-fp16-llm-int4", "onnxruntime")
    assert set(record["graphs"]) == {"vision", "temporal", "decoder"}
    assert "decoder" in {row["stage"] for row in record["verification"]}
