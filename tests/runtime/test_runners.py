from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from storm_edge.export.build.build import build
from storm_edge.export.build.goal import Goal
from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime import SamplingOptions, load
from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.engine import ENGINE_JSON, EngineRecord, read_engine
from storm_edge.runtime.bundle.manifest import STAGES, Bundle
from storm_edge.runtime.bundle.records import to_json
from storm_edge.runtime.bundle.trust import sealed
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.llm import onnxruntime as llm
from storm_edge.runtime.machine import targets
from storm_edge.runtime.machine.packages import import_onnxruntime
from storm_edge.runtime.runners import RUNNERS, Runner, function
from storm_edge.runtime.sessions import onnxruntime as sessions
from storm_edge.runtime.sessions.device import Device


@pytest.fixture
def invented(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A runner that exists in this test only; returns what was asked of it."""
    asked: list[str] = []

    def open_session(bundle: Bundle, record: EngineRecord, stage: Any, device: Device, threads: int | None) -> Any:
        asked.append(stage)
        return sessions.open_session(bundle, record, stage, device, threads)

    def open_generator(bundle: Bundle, record: EngineRecord, device: Device, threads: int | None) -> Any:
        asked.append("decoder")
        return llm.open_generator(bundle, record, device, threads)

    def build_it(bundle: Bundle, goal: Goal, progress: Callable[[str], None]) -> Any:
        asked.append("build")
        record = read_engine(bundle, "cpu-fp32")
        return record.model_copy(update={"runners": dict.fromkeys(STAGES, "invented")})

    module = ModuleType("invented_runner")
    module.__dict__.update(open_session=open_session, open_generator=open_generator, build_it=build_it)
    monkeypatch.setitem(sys.modules, "invented_runner", module)
    row = Runner(
        words="an invention",
        package="numpy",
        oldest="1",
        install="pip install numpy",
        device="cpu",
        compiles=False,
        for_absent_gpus=False,
        session="invented_runner:open_session",
        generator="invented_runner:open_generator",
        builder="invented_runner:build_it",
    )
    monkeypatch.setitem(RUNNERS, "invented", row)
    return asked


def test_a_runner_is_a_row_of_the_table_and_what_the_row_names(
    bundle: Path, copy_of: Callable[[Path], Path], invented: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy_of(bundle)
    cpu = targets.TARGETS["cpu"]
    where = targets.Target("cpu", "here", "invented", ("invented",), cpu.precisions, cpu.llm_precisions)
    record = build(Bundle.open(path), where, BuildOptions())
    assert invented == ["build"]
    (path / "engines" / "cpu-fp32" / ENGINE_JSON).write_text(to_json(sealed(record)))
    frames = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    answers = [
        load(folder).open(frames, frames=8).ask("Which way?", SamplingOptions(max_tokens=8)).read()
        for folder in (bundle, path)
    ]
    assert answers[0] == answers[1]
    assert invented == ["build", "vision", "temporal", "decoder"]


def test_an_engine_of_a_runner_that_this_version_does_not_know_is_refused(
    bundle: Path, copy_of: Callable[[Path], Path]
) -> None:
    path = copy_of(bundle)
    json_file = path / "engines" / "cpu-fp32" / ENGINE_JSON
    data = json.loads(json_file.read_text())
    json_file.write_text(json.dumps(data | {"runners": dict.fromkeys(STAGES, "abacus")}))
    with pytest.raises(EngineError, match=r"there is no runner 'abacus'.*storm build"):
        read_engine(Bundle.open(path), "cpu-fp32")


def test_an_engine_of_the_schema_before_is_refused_with_the_command_that_builds_it_again(
    bundle: Path, copy_of: Callable[[Path], Path]
) -> None:
    path = copy_of(bundle)
    json_file = path / "engines" / "cpu-fp32" / ENGINE_JSON
    data = json.loads(json_file.read_text())
    del data["runners"]
    json_file.write_text(json.dumps(data | {"schema_version": 1, "api": None}))
    with pytest.raises(EngineError, match=r"schema version 1.*repeat `storm build .* --target cpu`"):
        read_engine(Bundle.open(path), "cpu-fp32")


def test_a_stage_that_a_runner_does_not_run_is_refused(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    record = read_engine(opened, "cpu-fp32")
    wrong = record.model_copy(update={"runners": record.runners | {"vision": "vllm"}})
    with pytest.raises(EngineError, match="runs language models alone, not vision"):
        Stages.load(opened, wrong)


@pytest.mark.parametrize("name", list(RUNNERS))
def test_every_row_names_functions_that_exist(name: str) -> None:
    runner = RUNNERS[name]
    for place in filter(None, (runner.session, runner.piece, runner.generator, runner.builder)):
        assert callable(function(place))
    if runner.package == "onnxruntime":
        assert importlib.import_module(runner.package) is import_onnxruntime()
