from __future__ import annotations

import multiprocessing
import shlex
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from storm_edge.export.build import build as builds
from storm_edge.export.build import goal as goals
from storm_edge.export.build import pieces as cutting
from storm_edge.export.build import publish as publishing
from storm_edge.export.build.build import build
from storm_edge.export.build.device_command import device_command
from storm_edge.export.build.goal import judge
from storm_edge.export.build.options import BuildOptions, parse_shapes, parse_sms, parse_stages
from storm_edge.export.build.tensorrt import build as module
from storm_edge.export.build.tensorrt import engines
from storm_edge.export.build.tensorrt import plugin as plugins
from storm_edge.export.build.tensorrt.compile_job import CompileJob, CompileResult
from storm_edge.export.build.tensorrt.profiles import profiles
from storm_edge.export.build.tensorrt.versions import NEWEST, parse_version
from storm_edge.plugins.libraries import TENSORRT, find_library
from storm_edge.runtime.answer import stages
from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.engine import CheckResult, EngineRecord, FoundLayers, build_again, read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.trust import choose_engine
from storm_edge.runtime.config import sizes
from storm_edge.runtime.config.sizes import chunk_frames
from storm_edge.runtime.errors import BuildError, EngineError, ParityError, TargetError, UsageError
from storm_edge.runtime.machine.packages import installed
from storm_edge.runtime.machine.probe import Gpu, Machine
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.proof.uncompiled import PreparedChecks
from storm_edge.runtime.sessions import tensorrt as sessions
from storm_edge.runtime.sessions import tensorrt_engine
from storm_edge.runtime.sessions.tensorrt_engine import TensorRTEngine

Copy = Callable[[Path], Path]
PREPARE = BuildOptions(prepare_only=True, max_length=512)
NOTHING = (None, None, None, None, False, None, None, None, None)
WORKSTATION = Machine((), *NOTHING)
RTX_4090 = Machine((Gpu("NVIDIA GeForce RTX 4090", 89),), *NOTHING)
ORIN = Machine((Gpu("Orin (integrated)", 87),), *NOTHING)


def test_preparing_runs_anywhere_is_checked_against_the_reference_and_never_chosen(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    record = build(opened, target("rtx"), PREPARE)
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
        build(opened, target("orin"), replace(PREPARE, prepare_only=False))
    assert read_engine(opened, "orin-fp16-llm-bf16").state == "prepared"


def test_stages_that_cannot_be_run_where_they_are_prepared_are_named_with_the_reason(
    bundle: Path, copy_of: Copy
) -> None:
    options = replace(PREPARE, precision="bf16", llm_precision="bf16")
    record = build(Bundle.open(copy_of(bundle)), target("h100"), options)
    assert record.verification == []
    assert record.unchecked["vision"] == "ONNX Runtime multiplies no bf16 matrices on a CPU"
    assert record.unchecked["decoder"] == "only TensorRT runs this form of it"
    assert set(record.unchecked) == set(record.graphs)


def test_a_build_that_is_refused_leaves_no_prepared_graphs(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    before = sorted(p.name for p in (opened.root / "graphs").iterdir())
    with pytest.raises(TargetError, match="cannot run the language model"):
        build(opened, target("h100"), replace(PREPARE, tensorrt="10.3"))
    assert sorted(p.name for p in (opened.root / "graphs").iterdir()) == before


def test_an_unchanged_preparation_is_not_repeated_and_a_changed_one_not_reused(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    first = build(opened, target("orin"), PREPARE)
    other = build(opened, target("orin"), replace(PREPARE, max_length=1024))
    assert other.graphs["decoder"] != first.graphs["decoder"]
    assert other.graphs["vision"] == first.graphs["vision"]
    monkeypatch.setattr(module, "publish", None)  # nothing may be published now
    assert build(opened, target("orin"), replace(PREPARE, max_length=1024)) == other


def test_another_release_of_storm_edge_prepares_anew(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    first = build(opened, target("rtx"), PREPARE)
    monkeypatch.setattr(module.importlib.metadata, "version", lambda name: "9.9.9")
    assert build(opened, target("rtx"), PREPARE).key != first.key


def test_a_mismatch_that_was_allowed_once_is_not_allowed_ever_after(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    row = CheckResult(clip="clip0", stage="vision", metric="cosine", value=0.5, limit=0.9, passed=False)
    monkeypatch.setattr(module, "verify_prepared", lambda *_, **__: PreparedChecks([row]))
    monkeypatch.setattr(publishing, "verify", lambda *_, **__: [row])
    allowed = replace(PREPARE, allow_mismatch=True)
    prepared = build(opened, target("rtx"), allowed)
    assert build(opened, target("rtx"), allowed) == prepared
    with pytest.raises(ParityError, match="1 of 1 checks failed"):
        build(opened, target("rtx"), PREPARE)
    monkeypatch.setattr(builds, "probe", lambda: RTX_4090)
    monkeypatch.setattr(module, "require_package", lambda api: "1.7.1")

    def compile_graph(job: CompileJob, _: object) -> CompileResult:
        Path(job.engine).write_bytes(b"engine")
        return CompileResult(version="1.7.1", engine_bytes=6)

    monkeypatch.setattr(engines, "compile_graph", compile_graph)
    built = build(opened, target("rtx"), replace(allowed, prepare_only=False, without_plugin=True))
    assert (built.state, built.verified) == ("built", False)
    with pytest.raises(ParityError, match="1 of 1 checks failed"):
        build(opened, target("rtx"), replace(PREPARE, prepare_only=False, without_plugin=True))
    assert read_engine(opened, built.name) == built


def take_onnx_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in ("build.prepare", "graph_file"):
        monkeypatch.delitem(sys.modules, f"storm_edge.export.{name}", raising=False)


def test_a_device_needs_no_onnx_for_what_was_prepared_elsewhere(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    prepared = build(opened, target("orin"), PREPARE)
    take_onnx_away(monkeypatch)
    assert build(opened, target("orin"), replace(PREPARE, tensorrt="10.15.1")) == prepared


def test_a_device_without_onnx_is_told_when_its_options_are_not_those_of_the_preparation(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    take_onnx_away(monkeypatch)
    with pytest.raises(BuildError, match=r"--max-length 512 --tensorrt 10\.16 --prepare-only`, or pip install onnx"):
        build(opened, target("orin"), PREPARE)


def test_the_command_for_the_device_repeats_every_option_that_the_graphs_depend_on(bundle: Path) -> None:
    options = replace(
        PREPARE,
        stages=parse_stages("vision,temporal"),
        max_frames=16,
        int4_block=32,
        opt_shapes=parse_shapes("frames:4x64x64x3"),
        workspace_gib=1.5,
        decoder_profiles=1,
        without_plugin=True,
        allow_mismatch=True,
    )
    opened = Bundle.open(bundle)
    assert device_command(opened, "orin", "fp16", "int4", options) == (
        f"storm build {opened.root} --target orin --precision fp16 --llm-precision int4 --stages vision,temporal"
        " --max-frames 16 --max-length 512 --int4-block 32 --opt-shapes frames:4x64x64x3 --workspace 1.5"
        " --decoder-profiles 1 --without-plugin"
        " --allow-mismatch"
    )


def test_the_command_for_the_device_can_be_pasted_where_folders_have_spaces(
    bundle: Path, copy_of: Copy, tmp_path: Path
) -> None:
    spaced = Bundle.open(copy_of(bundle).rename(tmp_path / "my bundle"))
    words = shlex.split(device_command(spaced, "orin", "fp16", "bf16", BuildOptions()))
    assert words[:3] == ["storm", "build", str(spaced.root)]


def test_a_workstations_own_tensorrt_says_nothing_about_the_device(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(goals, "installed", lambda api: "10.4.0")
    assert judge(Bundle.open(bundle), target("orin"), PREPARE, WORKSTATION).version == NEWEST
    assert judge(Bundle.open(bundle), target("orin"), replace(PREPARE, llm_precision="int4"), ORIN).version == "10.4.0"


def test_on_jetpack_62_the_language_model_is_prepared_for_onnx_runtime(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    old = replace(PREPARE, tensorrt="10.3", int4_block=32)
    with pytest.raises(TargetError, match=r"TensorRT 10\.3 of JetPack 6\.2 cannot run the language model .*int4"):
        build(opened, target("orin"), replace(old, llm_precision="bf16"))
    record = build(opened, target("orin"), old)
    assert (record.name, record.runners["decoder"]) == ("orin-fp16-llm-int4", "onnxruntime-cuda")
    decoder = [r for r in record.verification if r.stage == "decoder"]
    assert decoder
    assert all(r.passed for r in decoder)
    # The device's own TensorRT asks for the same graphs.
    assert build(opened, target("orin"), replace(old, tensorrt="10.3.0.30")) == record


def test_on_a_jetson_without_onnx_runtime_cuda_the_processor_runs_the_language_model_where_that_is_asked_for(
    bundle: Path, copy_of: Copy
) -> None:
    opened = Bundle.open(copy_of(bundle))
    with pytest.raises(EngineError, match=r"has no CUDA: .*or --llm onnxruntime-cpu"):
        judge(opened, target("orin"), replace(PREPARE, tensorrt="10.3", prepare_only=False), ORIN)
    with pytest.raises(TargetError, match=r"no language model in bf16"):
        build(opened, target("orin"), replace(PREPARE, llm="onnxruntime-cpu", llm_precision="bf16"))
    with pytest.raises(UsageError, match=r"--tp 2: ONNX Runtime runs on one GPU: add a data-center target"):
        build(opened, target("orin"), replace(PREPARE, llm="onnxruntime-cpu", tp=2))
    record = build(opened, target("orin"), replace(PREPARE, tensorrt="10.3", llm="onnxruntime-cpu"))
    assert (record.name, record.runners["decoder"]) == ("orin-fp16-onnxruntime-cpu-int4", "onnxruntime-cpu")
    assert build_again(opened, record).endswith("--target orin --llm onnxruntime-cpu")


def test_elsewhere_the_language_model_on_an_old_tensorrt_is_refused_with_what_works(
    bundle: Path, copy_of: Copy
) -> None:
    opened = Bundle.open(copy_of(bundle))
    with pytest.raises(TargetError, match=r"TensorRT 10\.3 cannot run the language model .*10\.15 or newer.*--stages"):
        build(opened, target("a100"), replace(PREPARE, tensorrt="10.3"))
    stages = parse_stages("temporal, vision")
    record = build(opened, target("a100"), replace(PREPARE, tensorrt="10.3", stages=stages))
    assert set(record.graphs) == {"vision", "temporal"}


def test_profiles_can_be_overridden_with_trtexecs_names(bundle: Path) -> None:
    options = replace(
        PREPARE, max_shapes=parse_shapes("frames:32x64x64x3"), opt_shapes=parse_shapes("frames:4x64x64x3")
    )
    made = profiles(Bundle.open(bundle), options)["vision"][0]["frames"]
    assert (made.min, made.opt, made.max) == ([1, 64, 64, 3], [4, 64, 64, 3], [32, 64, 64, 3])


def _prepare_in_a_process(root: Path) -> str:
    return build(Bundle.open(root), target("thor"), PREPARE).key


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
    before = build(opened, target("rtx"), PREPARE)
    monkeypatch.setattr(builds, "probe", lambda: RTX_4090)
    monkeypatch.setattr(module, "require_package", lambda api: "1.7.1")

    def fail(*_: object) -> None:
        raise BuildError("the builder was killed")

    monkeypatch.setattr(engines, "compile_graph", fail)
    with pytest.raises(BuildError, match="killed"):
        build(opened, target("rtx"), replace(PREPARE, prepare_only=False, without_plugin=True))
    assert read_engine(opened, before.name) == before
    assert [p.name for p in (opened.root / "engines").iterdir() if p.name.startswith(".")] == []


def test_an_engine_that_runs_outlives_a_build_with_other_options_that_fails(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    row = CheckResult(clip="clip0", stage="vision", metric="cosine", value=1, limit=0.9, passed=True)
    monkeypatch.setattr(publishing, "verify", lambda *_, **__: [row])
    monkeypatch.setattr(builds, "probe", lambda: RTX_4090)
    monkeypatch.setattr(module, "require_package", lambda api: "1.7.1")

    def compile_graph(job: CompileJob, _: object) -> CompileResult:
        if "tokens" in job.profiles[0] and job.profiles[0]["tokens"].max[1] > 128:
            raise BuildError("out of memory")
        Path(job.engine).write_bytes(b"engine")
        return CompileResult(version="1.7.1", engine_bytes=6)

    monkeypatch.setattr(engines, "compile_graph", compile_graph)
    options = replace(PREPARE, prepare_only=False, without_plugin=True)
    built = build(opened, target("rtx"), options)
    with pytest.raises(BuildError, match="out of memory"):
        build(opened, target("rtx"), replace(options, max_frames=256))
    assert read_engine(opened, built.name) == built
    assert choose_engine(opened, None, ("rtx", "cpu")) == built


@pytest.mark.usefixtures("rtx")
def test_tensorrt_for_rtx_compiles_for_gpus_that_are_not_here(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    options = BuildOptions(sms=(86, 120), stages=("vision",), max_frames=16)
    record = build(opened, target("rtx"), options)
    assert (record.state, record.verified, record.sms) == ("compiled", False, [86, 120])
    assert (opened.root / record.graphs["vision"]).stat().st_size > 10_000
    assert record.versions["tensorrt"] == installed("tensorrt_rtx")
    assert read_engine(opened, record.name) == record
    assert choose_engine(opened, None, ("rtx", "cpu")).name == "cpu-fp32"
    with pytest.raises(EngineError, match="has no temporal and no decoder: `storm build"):
        load(opened.root, record.name)


@pytest.fixture
def every_clip_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "WHOLE_TEMPORAL_BYTES", 0)


def test_the_pieces_of_a_long_clip_are_prepared_checked_and_compiled_as_engines_beside_the_whole(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch, every_clip_is_long: None
) -> None:
    opened = Bundle.open(copy_of(bundle))
    prepared = build(opened, target("rtx"), PREPARE)
    assert len(prepared.pieces) == 7
    assert set(prepared.pieces.values()) <= set(prepared.files)
    rows = [r for r in prepared.verification if r.stage == "temporal in chunks"]
    assert rows
    assert all(r.passed for r in rows)
    (opened.root / "plugin.so").write_bytes(b"plugin")
    monkeypatch.setattr(plugins, "find_library", lambda kind: opened.root / "plugin.so")
    jobs: dict[str, CompileJob] = {}

    def compile_graph(job: CompileJob, _: object) -> CompileResult:
        jobs[Path(job.engine).name] = job
        Path(job.engine).write_bytes(b"engine")
        layers = FoundLayers(plugins=2 if job.plugins else 0, plugins_found=2 if job.plugins else None)
        return CompileResult(version="1.7.1", seconds=1, layers=layers)

    monkeypatch.setattr(engines, "compile_graph", compile_graph)
    monkeypatch.setattr(module, "require_package", lambda api: "1.7.1")
    monkeypatch.setattr(builds, "probe", lambda: WORKSTATION)
    compiled = build(opened, target("rtx"), replace(PREPARE, prepare_only=False, sms=(89,)))
    assert compiled.pieces == {name: f"engines/{compiled.name}/temporal.{name}.engine" for name in prepared.pieces}
    assert set(compiled.pieces.values()) <= set(compiled.files)
    assert compiled.prepared_pieces == prepared.pieces
    assert read_engine(opened, compiled.name) == compiled
    assert jobs["temporal.engine"].profiles[0]["tokens"].max == [1, 4, 16, 128]
    scanning = ("temporal", "temporal.0.states", "temporal.0.mix", "temporal.1.states", "temporal.1.mix")
    assert {name for name, job in jobs.items() if job.plugins} == {f"{name}.engine" for name in scanning}
    assert (compiled.layers["temporal"].plugins, compiled.layers["temporal"].plugins_found) == (10, 10)
    assert compiled.build_seconds["temporal"] == 8
    assert [name for name, job in jobs.items() if job.captured] == ["decoder.engine"]
    chunk = chunk_frames(opened.config) * opened.config.tokens_per_frame
    for name in ("0.enter", "pool"):
        assert jobs[f"temporal.{name}.engine"].profiles[0]["tokens"].max == [1, chunk, 128]
    again = build(opened, target("rtx"), PREPARE)
    assert (again.state, again.pieces) == ("prepared", prepared.pieces)  # the engine keeps what it was prepared from


def test_clips_that_never_need_pieces_get_none(bundle: Path, copy_of: Copy) -> None:
    assert build(Bundle.open(copy_of(bundle)), target("rtx"), PREPARE).pieces == {}


def test_the_whole_of_a_graph_that_cannot_be_cut_takes_clips_of_every_length(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch, every_clip_is_long: None
) -> None:
    monkeypatch.setattr(cutting, "temporal_pieces", lambda *_: ({}, {}))
    record = build(Bundle.open(copy_of(bundle)), target("rtx"), PREPARE)
    assert record.pieces == {}
    assert record.profiles["temporal"][0]["tokens"].max == [1, 128, 16, 128]


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_tensorrt_for_rtx_compiles_the_pieces(
    bundle: Path, copy_of: Copy, every_clip_is_long: None, precision: str
) -> None:
    opened = Bundle.open(copy_of(bundle))
    options = BuildOptions(precision, sms=(89,), stages=("temporal",), without_plugin=find_library(TENSORRT) is None)
    record = build(opened, target("rtx"), options)
    assert (record.state, len(record.pieces)) == ("compiled", 7)
    assert all((opened.root / file).stat().st_size > 1000 for file in record.pieces.values())


def test_what_was_compiled_elsewhere_is_verified_on_its_gpu_without_compiling_it_again(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    compiled: list[str] = []

    def compile_graph(job: CompileJob, _: object) -> CompileResult:
        compiled.append(Path(job.graph).name)
        assert (job.compute_capabilities, job.timing_cache) == ([86, 89], None)
        Path(job.engine).write_bytes(b"engine")
        return CompileResult(version="1.7.1", engine_bytes=6)

    monkeypatch.setattr(engines, "compile_graph", compile_graph)
    monkeypatch.setattr(module, "require_package", lambda api: "1.7.1")
    monkeypatch.setattr(builds, "probe", lambda: WORKSTATION)
    options = replace(PREPARE, prepare_only=False, without_plugin=True)
    first = build(opened, target("rtx"), replace(options, sms=(86, 89)))
    assert (first.state, first.sms, len(compiled)) == ("compiled", [86, 89], 3)
    with pytest.raises(EngineError, match="rtx-fp16-llm-bf16 is only compiled: `storm build"):
        load(opened.root, first.name)
    assert build(opened, target("rtx"), replace(options, sms=(89,))) == first

    row = CheckResult(clip="clip0", stage="vision", metric="cosine", value=1, limit=0.9, passed=True)
    seen: list[EngineRecord] = []

    def verify(_: Bundle, record: EngineRecord, **__: object) -> list[CheckResult]:
        seen.append(record)
        return [row]

    monkeypatch.setattr(publishing, "verify", verify)
    monkeypatch.setattr(builds, "probe", lambda: RTX_4090)
    record = build(opened, target("rtx"), options)
    assert len(compiled) == 3
    assert (record.state, record.verified, record.verification) == ("built", True, [row])
    assert [r.state for r in seen] == ["built"]
    assert read_engine(opened, record.name) == record
    assert choose_engine(opened, None, ("rtx", "cpu")) == record
    assert build(opened, target("rtx"), options) == record  # unchanged: neither compiled nor verified again
    assert (len(compiled), len(seen)) == (3, 1)


def test_an_engine_for_another_gpu_names_both_sides(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    record = build(opened, target("rtx"), PREPARE)
    monkeypatch.setattr(sessions, "probe", lambda: RTX_4090)
    monkeypatch.setattr(stages, "open_device", lambda memory: None)
    with pytest.raises(EngineError, match=r"compiled for SM 86, 120, this machine has .*RTX 4090 \(SM 89\): build it"):
        Stages.load(opened, record.model_copy(update={"state": "built", "sms": [86, 120]}))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("orin", BuildOptions(sms=(87,)), r"only TensorRT for RTX .* leave --sm out, orin is always SM 87"),
        ("rtx", BuildOptions(sms=(90,)), "does not compile for SM 90: choose among 75, 80, 86, 89, 120, 121"),
        ("rtx", BuildOptions(sms=(86, 89), precision="fp8"), r"\(SM 86\) has no FP8 units"),
        ("rtx", BuildOptions(tensorrt="10.3"), "leave --tensorrt out for target rtx"),
    ],
)
def test_gpus_that_cannot_be_compiled_for_are_refused(
    name: str, options: BuildOptions, words: str, bundle: Path
) -> None:
    with pytest.raises(TargetError, match=words):
        judge(Bundle.open(bundle), target(name), options, WORKSTATION)


def test_a_machine_without_the_gpu_is_told_that_rtx_can_be_compiled_for_anyway(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    with pytest.raises(TargetError, match=r"this machine is no rtx: compile here .* --sm 86,89,120 .*, or copy"):
        build(opened, target("rtx"), replace(PREPARE, prepare_only=False))


def test_an_engine_of_another_version_or_plugin_names_both_sides(
    bundle: Path, copy_of: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    record = build(opened, target("rtx"), PREPARE)
    built = record.model_copy(update={"state": "built", "plugin_sha256": 64 * "a"})
    monkeypatch.setenv("STORM_PLUGIN_PATH", "")
    monkeypatch.setattr(stages, "open_device", lambda memory: None)
    with pytest.raises(EngineError, match=r"was built with plugin aaaaaaaaaaaa, this machine has none"):
        Stages.load(opened, built)
    package = SimpleNamespace(__version__="10.16.2")
    monkeypatch.setattr(tensorrt_engine, "import_tensorrt", lambda api: package)
    with pytest.raises(EngineError, match=r"built with TensorRT 10\.3\.0, this machine has 10\.16\.2: build it again"):
        TensorRTEngine(tmp_path / "x.engine", "tensorrt", "10.3.0", None)


def test_options_that_make_no_sense_are_refused(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    for options, error, words in (
        (replace(PREPARE, int4_block=32), UsageError, "--int4-block 32 is for int4 weights.* are bf16: add --llm-p"),
        (replace(PREPARE, calibration="x"), UsageError, "--calibration x: fp16 and bf16 need none: add --precision"),
        (replace(PREPARE, calibration="x", llm_precision="int4"), UsageError, "no calibration 'x' with scales"),
        (replace(PREPARE, tensorrt="8.6"), TargetError, r"8\.6 is older than 10\.3.*: JetPack 6\.2 or newer"),
        (replace(PREPARE, max_length=10**6), TargetError, "give 1 to 8192"),
        (replace(PREPARE, wide_softmax=True), UsageError, r"--wide-softmax is for TensorRT before 10\.14"),
        (replace(PREPARE, precision="fp8"), TargetError, "no FP8 units"),
        (replace(PREPARE, tensorrt="ten"), UsageError, "'ten' is no version: give one like 10.3"),
    ):
        with pytest.raises(error, match=words):
            build(opened, target("orin"), options)
    for shapes, words in (
        (parse_shapes("image:1x2"), "no graph has"),
        (parse_shapes("frames:99x64x64x3"), "let it grow, with --min-shapes"),
        (parse_shapes("frames:0x64x64x3"), "--min-shapes: frames is Nx64x64x3 in this bundle, with N from 1 up"),
        (parse_shapes("tokens:1x4x16x64"), "--min-shapes: tokens is 1xNx16x128 in this bundle"),
        (parse_shapes("tokens:1x6x16x128"), r"6 frames of tokens are no multiple of the 4 .*give tokens:1x8x16x128"),
        (parse_shapes("position_ids:1x2"), "no graph has a dynamic input position_ids: choose frames, tokens"),
    ):
        encoders = replace(PREPARE, min_shapes=shapes, stages=parse_stages("vision,temporal"))
        with pytest.raises(UsageError, match=words):
            build(opened, target("orin"), encoders)
    for shapes, words in (
        (parse_shapes("frames:1x64x64x3"), "let it grow"),
        (parse_shapes("position_ids:1x600"), "inputs_embeds has 1024 tokens, position_ids 600: give both the same"),
    ):
        with pytest.raises(UsageError, match=words):
            build(opened, target("orin"), replace(PREPARE, max_shapes=shapes, max_length=1024))
    few = parse_shapes("frames:4x64x64x3")
    with pytest.raises(UsageError, match="ends at 4, the runtime gives 8 at once: give --max-shapes frames:8x64x64x3"):
        build(opened, target("orin"), replace(PREPARE, opt_shapes=few, max_shapes=few))
    with pytest.raises(UsageError, match="frames has two shapes"):
        parse_shapes("frames:8x64x64x3,frames:9x64x64x3")
    with pytest.raises(UsageError, match="is no shape"):
        parse_shapes("frames=1x2")
    with pytest.raises(UsageError, match="'audio' is no stage"):
        parse_stages("audio")
    with pytest.raises(UsageError, match="'fast' is no compute capability"):
        parse_sms("86,fast")
    assert parse_sms("120, 8.6,86") == (86, 120)
    assert parse_version("10.3.0.26") == (10, 3)
