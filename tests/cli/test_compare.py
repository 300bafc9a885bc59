from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import onnx
import pytest
from click.testing import CliRunner, Result

from storm_edge.cli.compare import command as compare
from storm_edge.cli.verify import command as verify
from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.passes import quantize
from storm_edge.runtime.bundle.calibration import Range
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import ParityError, UsageError
from storm_edge.runtime.machine.targets import target

pytest.importorskip("polygraphy", reason="Polygraphy is not installed: run `make setup`")


def run(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], obj={"quiet": False, "verbose": False})


@pytest.fixture
def wrong(
    calibrated: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, str, list[str]]:
    """A bundle, an engine of which a pass cut an activation of the vision tower to a fiftieth, and what reads it."""
    given: list[str] = []
    right = quantize._activation

    def cut(graph: onnx.GraphProto, name: str, span: Range, *others: Any) -> Iterator[onnx.NodeProto]:
        given.append(name)
        if len(given) == 4:
            span = dataclasses.replace(span, low=span.low / 50, high=span.high / 50)
        return right(graph, name, span, *others)

    monkeypatch.setattr(quantize, "_activation", cut)
    root = copy_of(calibrated)
    options = BuildOptions("int8", calibration="clips", allow_mismatch=True)
    engine = build(Bundle.open(root), target("cpu"), options)
    assert not engine.verified
    graph = onnx.load(root / engine.graphs["vision"], load_external_data=False).graph
    return root, engine.name, [node.name for node in graph.node if f"{given[3]}.dequantized" in node.input]


def test_verify_names_the_command_and_the_command_names_the_layer(wrong: tuple[Path, str, list[str]]) -> None:
    root, engine, nodes = wrong
    told = run(verify, root, "--engine", engine, "--threads", 1)
    line = f"which layer: storm compare {root} --engine {engine} --stage vision --clip clip0"
    assert line in told.stdout.splitlines()
    found = run(compare, *line.partition("compare ")[2].split())
    assert isinstance(found.exception, ParityError)
    named = [
        n
        for n in nodes
        if f"differs from the bundle's own graph on clip0 first at node {n} (MatMul)" in str(found.exception)
    ]
    assert named == nodes[:1]
    assert found.stdout.splitlines()[-1].endswith("  DIFFERS")
    assert f"not compared, only in {engine}: " in found.stdout
    as_json = json.loads(run(compare, root, "--engine", engine, "--stage", "vision", "--json").stdout)
    assert as_json["first"]["node"] == nodes[0]
    assert as_json["rows"][0]["passed"]


def test_engines_that_agree_are_said_to_agree(wrong: tuple[Path, str, list[str]]) -> None:
    root, engine, _ = wrong
    found = run(compare, root, "--engine", engine, "--against", "cpu-fp32", "--stage", "decoder", "--mark", "all")
    assert found.exit_code == 0
    assert found.stdout.splitlines()[0].startswith(f"decoder of {engine} beside cpu-fp32, clip0: ")
    assert found.stdout.splitlines()[-1] == "no layer differs by more than verify allows its precision"


def test_a_clip_that_is_not_there_is_refused(bundle: Path) -> None:
    failed = run(compare, bundle, "--engine", "cpu-fp32", "--clip", "clip9")
    assert isinstance(failed.exception, UsageError)
    assert "no reference clip 'clip9': choose one of clip0, clip1" in str(failed.exception)
