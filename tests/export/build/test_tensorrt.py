from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from storm_edge.export.build import tensorrt as module
from storm_edge.export.build.options import BuildOptions, parse_shapes, parse_stages, parse_version
from storm_edge.export.build.tensorrt import build_tensorrt, profiles
from storm_edge.runtime.bundle import Bundle
from storm_edge.runtime.engine import choose_engine, read_engine
from storm_edge.runtime.errors import BuildError, EngineError, TargetError, UsageError
from storm_edge.runtime.machine import Gpu, Machine
from storm_edge.runtime.pipeline import load
from storm_edge.runtime.sessions import tensorrt as sessions
from storm_edge.runtime.stages import Stages
from storm_edge.runtime.targets import target

Copy = Callable[[Path], Path]
PREPARE = BuildOptions(prepare_only=True, max_length=512)


def test_preparing_runs_anywhere_is_checked_against_the_reference_and_never_chosen(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    record = build_tensorrt(opened, target("rtx"), PREPARE)
    assert (record.state, record.verified, record.name) == ("prepared", False, "rtx-fp16-llm-bf16")
    assert {r.stage for r in record.verification} == {"vision", "temporal"}
    assert all(r.passed for r in record.verification)
    assert read_engine(opened, record.name) == record
    assert choose_engine(opened, None, ("rtx", "cpu")).name == "cpu-fp32"
    with pytest.raises(EngineError, match="rtx-fp16-llm-bf16 is only prepared: `storm build"):
        load(opened.root, record.name)


def test_without_prepare_only_another_machine_gets_the_command_for_the_device(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    with pytest.raises(TargetError, match=r"is no orin: copy .* `storm build .* --target orin --prec"):
        build_tensorrt(opened, target("orin"), replace(PREPARE, prepare_only=False))
    assert read_engine(opened, "orin-fp16-llm-bf16").state == "prepared"


def test_an_unchanged_preparation_is_not_repeated_and_a_changed_one_not_reused(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    first = build_tensorrt(opened, target("orin"), PREPARE)
    other = build_tensorrt(opened, target("orin"), replace(PREPARE, max_length=1024))
    assert other.graphs["decoder"] != first.graphs["decoder"]
    assert other.graphs["vision"] == first.graphs["vision"]
    monkeypatch.setattr(module, "_publish", None)  # nothing may be published now
    assert build_tensorrt(opened, target("orin"), replace(PREPARE, max_length=1024)) == other


def test_a_device_needs_no_onnx_for_what_was_prepared_elsewhere(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    opened = Bundle.open(copy_of(bundle))
    prepared = build_tensorrt(opened, target("orin"), PREPARE)
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "storm_edge.export.build.prepare")
    assert build_tensorrt(opened, target("orin"), replace(PREPARE, tensorrt="10.15.1")) == prepared


def test_the_language_model_on_tensorrt_10_3_is_refused_with_the_way_that_works(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    with pytest.raises(TargetError, match=r"TensorRT 10\.3 cannot run the language model .*ONNX Runtime.*--stages"):
        build_tensorrt(opened, target("orin"), replace(PREPARE, tensorrt="10.3"))
    stages = parse_stages("temporal, vision")
    record = build_tensorrt(opened, target("orin"), replace(PREPARE, tensorrt="10.3", stages=stages))
    assert set(record.graphs) == {"vision", "temporal"}


def test_profiles_can_be_overridden_with_trtexecs_names(bundle: Path) -> None:
    options = replace(
        PREPARE, max_shapes=parse_shapes("frames:32x64x64x3"), opt_shapes=parse_shapes("frames:4x64x64x3")
    )
    made = profiles(Bundle.open(bundle), options)["vision"]["frames"]
    assert (made.min, made.opt, made.max) == ([1, 64, 64, 3], [4, 64, 64, 3], [32, 64, 64, 3])


def _prepare_in_a_process(root: Path) -> str:
    return build_tensorrt(Bundle.open(root), target("thor"), PREPARE).key


def test_two_builders_at_once_give_one_engine(bundle: Path, copy_of: Copy) -> None:
    root = copy_of(bundle)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        keys = list(pool.map(_prepare_in_a_process, [root, root]))
    opened = Bundle.open(root)
    assert keys == 2 * [read_engine(opened, "thor-fp16-llm-bf16").key]
    assert not [p for p in root.rglob("*") if "partial" in p.name]


def test_a_build_that_fails_leaves_the_engine_before_it(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    before = build_tensorrt(opened, target("rtx"), PREPARE)
    here = Machine((Gpu("NVIDIA GeForce RTX 4090", 89),), None, None, None, None, False, None, None, None, None)
    monkeypatch.setattr(module, "probe", lambda: here)
    monkeypatch.setattr(module, "_installed", lambda api, required: "1.7.1")

    def fail(*_: object) -> None:
        raise BuildError("the builder was killed")

    monkeypatch.setattr(module, "compile_graph", fail)
    with pytest.raises(BuildError, match="killed"):
        build_tensorrt(opened, target("rtx"), replace(PREPARE, prepare_only=False))
    assert read_engine(opened, before.name) == before
    assert [p.name for p in (opened.root / "engines").iterdir() if p.name.startswith(".")] == []


def test_an_engine_of_another_version_or_plugin_names_both_sides(
    bundle: Path, copy_of: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    record = build_tensorrt(opened, target("rtx"), PREPARE)
    built = record.model_copy(update={"state": "built", "plugin_sha256": 64 * "a"})
    monkeypatch.setenv("STORM_PLUGIN_PATH", "")
    with pytest.raises(EngineError, match=r"was built with plugin aaaaaaaaaaaa, this machine has none"):
        Stages.load(opened, built)
    package = SimpleNamespace(__version__="10.16.2")
    monkeypatch.setattr(sessions, "import_tensorrt", lambda api: (package, None))
    with pytest.raises(EngineError, match=r"built with TensorRT 10\.3\.0, this machine has 10\.16\.2: build it again"):
        sessions.TensorRTSession(tmp_path / "x.engine", "tensorrt", "10.3.0")


def test_options_that_make_no_sense_are_refused(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    for options, error, words in (
        (replace(PREPARE, max_frames=2), UsageError, "less than the 4 frames"),
        (replace(PREPARE, max_length=10**6), TargetError, "give 1 to 8192"),
        (replace(PREPARE, precision="fp8"), TargetError, "no FP8 units"),
        (replace(PREPARE, tensorrt="ten"), TargetError, "no TensorRT version"),
    ):
        with pytest.raises(error, match=words):
            build_tensorrt(opened, target("orin"), options)
    for shapes, words in (
        (parse_shapes("image:1x2"), "no graph has"),
        (parse_shapes("frames:99x64x64x3"), "let it grow"),
    ):
        with pytest.raises(UsageError, match=words):
            build_tensorrt(opened, target("orin"), replace(PREPARE, min_shapes=shapes))
    with pytest.raises(UsageError, match="is no shape"):
        parse_shapes("frames=1x2")
    with pytest.raises(UsageError, match="'audio' is no stage"):
        parse_stages("audio")
    assert parse_version("10.3.0.26") == (10, 3)
