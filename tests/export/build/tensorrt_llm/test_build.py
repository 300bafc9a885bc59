"""`storm build --llm tensorrt-llm`: prepared here; compiled, verified and run on a machine that is made up.

Made up are the GPU, TensorRT's compiler and sessions (ONNX Runtime runs the prepared graphs in their place), and the
package tensorrt_llm by its recorded description. trtllm-build is a program on the path that refuses words that the real
one has not, and leaves the files that it leaves.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from storm_edge.calibration.calibrate import calibrate
from storm_edge.calibration.language import Language
from storm_edge.cli.build import command
from storm_edge.cli.inspect import describe
from storm_edge.cli.printing import LONGEST
from storm_edge.export.build import build as building
from storm_edge.export.build import goal as goals
from storm_edge.export.build.tensorrt import build as compiling
from storm_edge.export.build.tensorrt import build as tensorrt_build
from storm_edge.export.build.tensorrt import engines
from storm_edge.export.build.tensorrt.compile_job import CompileJob, CompileResult
from storm_edge.runtime import SamplingOptions, load
from storm_edge.runtime.bundle.contents import unlisted_files
from storm_edge.runtime.bundle.engine import check_engine_hashes, read_engine
from storm_edge.runtime.bundle.engine_graphs import engine_graph
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import BuildError, EngineError, StormError, TargetError, UsageError
from storm_edge.runtime.llm import language_folder, tensorrt_llm
from storm_edge.runtime.machine import doctor
from storm_edge.runtime.machine.probe import Gpu, Machine
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.proof.advice import advise
from storm_edge.runtime.runners import RUNNERS
from storm_edge.runtime.sessions.device import HOST
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession

Copy = Callable[[Path], Path]
API = Path(__file__).parents[3] / "runtime" / "llm" / "tensorrt_llm_recorded.json"
H100 = Gpu("NVIDIA H100 80GB HBM3", 90)
ENGINE = "h100-fp16-tensorrt-llm-bf16"


@pytest.fixture(autouse=True)
def no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPUs of these tests are made up, and so are the encoders' engines: they need no plugin (see test_plugin)."""
    monkeypatch.setattr(tensorrt_build, "plugin_for", lambda bundle, goal: None)


def storm_build(root: Path, *words: object, where: str = "h100", llm: bool = True) -> Result:
    chosen = ("--llm", "tensorrt-llm") if llm else ()
    arguments = [root, "--target", where, *chosen, "--max-frames", 16, *words]
    return CliRunner().invoke(command, [*map(str, arguments)], obj={"verbose": False, "quiet": False})


def machine(*gpus: Gpu) -> Machine:
    return Machine(gpus, *(None, None, None, None, False, None, None, None, None))


@pytest.fixture(scope="module")
def observed(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with a calibration that observed the language model."""

    def clips() -> list[np.ndarray]:
        return [np.random.default_rng(i).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8) for i in range(8)]

    from storm_edge.calibration.language import describe_all

    path = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("observed") / "bundle"))
    calibrate(Bundle.open(path), clips, "seen", samples=8, threads=1, language=Language(describe_all(clips), prompts=2))
    return path


@pytest.mark.parametrize(
    ("precision", "tp", "words", "algorithm"),
    [
        ("bf16", 1, (), None),
        ("bf16", 2, (), None),
        ("bf16", 4, (), None),
        ("fp16", 2, (), None),
        ("int8", 4, (), "W8A16"),
        ("int4", 1, (), "W4A16_AWQ"),
        ("int4", 2, ("--int4-block", 64), "W4A16_AWQ"),
        ("fp8", 1, (), "FP8"),
        ("fp8", 4, (), "FP8"),
    ],
)
def test_every_precision_is_prepared_without_the_package_and_reads_back(
    precision: str,
    tp: int,
    words: tuple[object, ...],
    algorithm: str | None,
    observed: Path,
    copy_of: Copy,
    reader: ModuleType,
) -> None:
    root = copy_of(observed)
    done = storm_build(root, "--llm-precision", precision, "--tp", tp, *words, "--prepare-only", "--json")
    assert done.exit_code == 0, done.exception
    name = f"h100-fp16-tensorrt-llm-{precision}" + (f"-tp{tp}" if tp > 1 else "")
    opened = Bundle.open(root)
    record = read_engine(opened, name)
    assert (record.state, record.tp, record.llm_precision) == ("prepared", tp, precision)
    assert record.runners == {"vision": "tensorrt", "temporal": "tensorrt", "decoder": "tensorrt-llm"}
    assert record.graphs["decoder"] == f"engines/{name}/config.json"
    assert record.calibration.startswith("seen ") == (precision == "fp8")
    assert {r.stage for r in record.verification} == {"vision", "temporal"}
    ranks = {f"engines/{name}/rank{r}.safetensors" for r in range(tp)}
    assert {f for f in record.files if f.startswith("engines/")} == ranks | {f"engines/{name}/config.json"}
    check_engine_hashes(opened, record)
    assert unlisted_files(opened) == []
    made = reader.Checkpoint(root / "engines" / name)
    made.check()
    assert made.quantization["quant_algo"] == algorithm
    assert np.isfinite(made.logits([1, 2, 3])).all()


def test_the_command_for_the_device_and_trtllm_builds_own_are_shown(bundle: Path, copy_of: Copy) -> None:
    root = copy_of(bundle)
    done = storm_build(root, "--tp", 2, "--prepare-only")
    device = f"storm build {root} --target h100 --precision fp16 --llm-precision bf16 --llm tensorrt-llm --tp 2"
    assert f"on the device: `{device} --max-frames 16`." in done.output
    assert "2 of 3 stages could be checked here; decoder: only TensorRT-LLM runs this form of it." in done.output
    alone = f"`trtllm-build --checkpoint_dir {root}/engines/{ENGINE}-tp2 --output_dir {ENGINE}-tp2 --workers 2"
    assert alone in done.output
    assert "--use_paged_context_fmha enable`.\n" in done.output  # nothing of it is left out
    elsewhere = storm_build(root, "--tp", 2)
    assert isinstance(elsewhere.exception, TargetError)
    assert f"this machine is no h100: copy {root} to one and run `{device}" in str(elsewhere.exception)
    assert read_engine(Bundle.open(root), f"{ENGINE}-tp2").state == "prepared"


def test_what_reads_graphs_says_that_this_language_model_is_none(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    assert storm_build(opened.root, "--tp", 2, "--prepare-only").exit_code == 0
    record = read_engine(opened, f"{ENGINE}-tp2")
    with pytest.raises(EngineError, match="has no graph of decoder, TensorRT-LLM takes files of its own"):
        engine_graph(opened, record, "decoder")
    assert describe(opened)["engines"][record.name].endswith("language model by TensorRT-LLM on 2 GPUs")
    again = f"storm build {opened.root} --target h100 --llm tensorrt-llm --tp 2"
    with pytest.raises(EngineError, match=f"is only prepared: `{again}`"):
        load(opened.root, record.name)
    assert "leave --llm out" in advise(opened, record, "chain decoder")
    assert "storm compare" in advise(opened, record, "vision")


@pytest.mark.parametrize(
    ("version", "said"),
    [(None, "not installed"), ("1.2.1", "1.2.1"), ("1.3.0", "1.3.0: engines are for 1.2 up to 1.3")],
)
def test_the_doctor_knows_the_package(version: str | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda _: version)
    assert doctor.examine()["engines"]["TensorRT-LLM"].startswith(said)


def test_an_older_calibration_is_said_to_leave_the_cache_in_16_bits(
    observed: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*arguments: Any) -> Any:
        found = calibration_of(*arguments)
        del found.ranges["decoder"]["model.layers.2.self_attn.v_proj"]
        return found

    calibration_of = goals.calibration_of
    monkeypatch.setattr(goals, "calibration_of", without)
    done = storm_build(copy_of(observed), "--llm-precision", "fp8", "--prepare-only")
    assert "note: the calibration has no ranges of keys and values, so their cache keeps 16 bits" in done.output


@pytest.mark.parametrize(
    ("where", "words", "error", "said"),
    [
        ("h100", ("--tp", 8), TargetError, r"--tp 8: 4 attention heads cannot be shared among 8 ranks \(4 / 8 = 0.5\)"),
        ("h100", ("--tp", 4, "--llm-precision", "int4"), TargetError, "--tp 4: a rank's 32 inputs of a layer are no"),
        ("h100", ("--llm-precision", "fp32"), TargetError, "TensorRT-LLM runs no language model in fp32: use"),
        ("h100", ("--llm-precision", "fp7"), UsageError, "there is no precision 'fp7'"),
        ("h100", ("--llm-precision", "fp8"), BuildError, "did not observe the language model"),
        (
            "a100",
            ("--llm-precision", "fp8"),
            TargetError,
            "they start at SM 89: use --llm-precision int8",
        ),
        ("h100", ("--llm-precision", "int4", "--int4-block", 32), UsageError, "--int4-block 32: TensorRT-LLM has no"),
        ("h100", ("--int4-block", 64), UsageError, "this language model's are bf16"),
        ("h100", ("--stages", "vision,temporal"), UsageError, "--llm tensorrt-llm is for the language model"),
        ("h100", ("--max-frames", 4096), TargetError, "give fewer --max-frames"),
        ("h100", ("--max-shapes", "inputs_embeds:1x64x128"), UsageError, "no graph has a dynamic input inputs_embeds"),
        ("h100", ("--simulate",), UsageError, "--llm is for what TensorRT compiles"),
        ("cpu", (), UsageError, "--llm is for TensorRT targets"),
        ("orin", (), TargetError, "orin has no --llm tensorrt-llm: choose tensorrt."),
        ("h100", ("--llm", "abacus"), UsageError, "h100 has no --llm abacus: choose tensorrt or tensorrt-llm"),
        ("h100", ("--llm", "tensorrt", "--tp", 2), UsageError, "TensorRT runs on one GPU: add --llm tensorrt-llm"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    where: str, words: tuple[object, ...], error: type[StormError], said: str, bundle: Path, copy_of: Copy
) -> None:
    root = copy_of(bundle)
    before = sorted(root.rglob("*"))
    done = storm_build(root, *words, where=where)
    assert type(done.exception) is error
    with pytest.raises(error, match=said):
        raise done.exception
    assert sorted(root.rglob("*")) == before


class InPlaceOfTensorRT:
    """A session on the graph that a made-up engine names; 16-bit inputs and outputs are float32 outside."""

    device, batch = HOST, 8

    def __init__(self, bundle: Bundle, record: Any, stage: Any, device: Any, threads: int | None) -> None:
        self._session = OnnxRuntimeSession(Path(bundle.located(record.graphs[stage]).read_text()), threads)

    def run(self, **inputs: Any) -> dict[str, Any]:
        given = {n: x if x.dtype == np.uint8 else x.astype(np.float16) for n, x in inputs.items()}
        return {n: x.astype(np.float32) for n, x in self._session.run(**given).items()}


def compile_in_place_of_tensorrt(job: CompileJob, _: object) -> CompileResult:
    Path(job.engine).write_text(job.graph)
    return CompileResult(version="10.14.1.48", engine_bytes=1)


PROGRAM = """#!{python}
import json, os, pathlib, shutil, sys
words = sys.argv[1:]
given = dict(zip(words[::2], words[1::2], strict=True))
known = json.loads(pathlib.Path({api!r}).read_text())["trtllm-build"]
for flag, value in given.items():
    if flag not in known or known[flag] is not None and value not in known[flag]:
        sys.exit(f"trtllm-build: error: unrecognized arguments: {{flag}} {{value}}")
with open({log!r}, "a") as file:
    file.write(json.dumps(given) + "\\n")
open("model.cache", "w").close()
exec(pathlib.Path({script!r}).read_text())
checkpoint, output = (pathlib.Path(given[f"--{{n}}_dir"]) for n in ("checkpoint", "output"))
output.mkdir(parents=True)
model = json.loads((checkpoint / "config.json").read_text())
names = ("max_input_len", "max_seq_len", "max_batch_size")
build = {{name: int(given[f"--{{name}}"]) for name in names}}
build["max_prompt_embedding_table_size"] = int(given["--max_multimodal_len"])
build["plugin_config"] = {{"tokens_per_block": 32}}
print("[TRT-LLM] [I] Build TensorRT engine Unnamed Network 0", flush=True)
(output / "config.json").write_text(json.dumps({{"pretrained_config": model, "build_config": build}}))
for rank in range(model["mapping"]["world_size"]):
    shutil.copy(checkpoint / f"rank{{rank}}.safetensors", output / f"rank{{rank}}.engine")
"""


@pytest.fixture
def device(tmp_path: Path, reader: ModuleType, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with H100s, TensorRT and tensorrt_llm, all made up; `said` is what trtllm-build was told."""
    made = SimpleNamespace(gpus=[H100], version="1.2.1", log=tmp_path / "log", script=tmp_path / "script", executors=[])
    made.script.write_text("")
    for module in (building, language_folder):
        monkeypatch.setattr(module, "probe", lambda: machine(*made.gpus))
    row = replace(RUNNERS["tensorrt"], device="cpu", session="made_up_tensorrt:InPlaceOfTensorRT")
    monkeypatch.setitem(RUNNERS, "tensorrt", row)
    monkeypatch.setitem(sys.modules, "made_up_tensorrt", SimpleNamespace(InPlaceOfTensorRT=InPlaceOfTensorRT))
    # The package's own TensorRT, which is older than what a machine without one prepares for.
    monkeypatch.setattr(goals, "installed", lambda _: "10.14.1.48")
    monkeypatch.setattr(compiling, "require_package", lambda _: "10.14.1.48")
    monkeypatch.setattr(engines, "timing_cache", lambda _: tmp_path / "timing")
    monkeypatch.setattr(engines, "compile_graph", compile_in_place_of_tensorrt)
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "tensorrt_llm" and made.version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return str(made.version) if name == "tensorrt_llm" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(tensorrt_llm, "worker_program", lambda: Path("executorWorker"))
    program = tmp_path / "bin" / "trtllm-build"
    program.parent.mkdir()
    words = {"python": sys.executable, "api": str(API), "log": str(made.log), "script": str(made.script)}
    program.write_text(PROGRAM.format(**words))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.syspath_prepend(str(API.parent))
    recorded = importlib.import_module("recorded_trtllm").recorded

    def bindings() -> SimpleNamespace:
        api = recorded(None)
        make = api.Executor

        def executor(folder: Path, *arguments: Any) -> Any:
            done = make(folder, *arguments)
            done.checkpoint = reader.Checkpoint(Path(folder).parent)  # which the made-up compiler copied
            made.executors.append(done)
            return done

        api.Executor = executor
        return api

    monkeypatch.setattr(tensorrt_llm, "executor_bindings", bindings)
    return made


def told(device: SimpleNamespace) -> list[dict[str, str]]:
    return [json.loads(line) for line in device.log.read_text().splitlines()] if device.log.exists() else []


def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


def test_a_machine_with_the_gpu_and_the_package_makes_an_engine_that_answers(
    device: SimpleNamespace, bundle: Path, copy_of: Copy
) -> None:
    root = copy_of(bundle)
    done = storm_build(root)
    assert done.exit_code == 0, done.exception
    assert f"{root}/engines/{ENGINE}: " in done.output
    opened = Bundle.open(root)
    record = read_engine(opened, ENGINE)
    assert (record.state, record.verified, record.versions["tensorrt_llm"]) == ("built", True, "1.2.1")
    assert {r.stage for r in record.verification} >= {"vision", "temporal", "decoder", "chain decoder"}
    assert record.graphs["decoder"] == f"engines/{ENGINE}/engine/config.json"
    assert unlisted_files(opened) == []
    (given,) = told(device)
    assert given["--max_multimodal_len"] == str(4 * opened.config.visual_tokens(16))
    assert describe(opened)["engines"][ENGINE].startswith("built")
    greedy = SamplingOptions(max_tokens=8)
    video = load(root, ENGINE).open(frames(), frames=8)
    first = video.ask("Which way?", greedy)
    assert len(first.read()) > 0
    assert (first.stats.answer_tokens, first.stats.reused_tokens) == (8, 0)
    again = video.ask("Which way?", greedy)
    assert again.read() == first.text
    assert again.stats.reused_tokens > 0
    assert storm_build(root).exit_code == 0
    assert len(told(device)) == 1  # nothing is compiled twice


def test_two_gpus_share_the_language_model(device: SimpleNamespace, bundle: Path, copy_of: Copy) -> None:
    root = copy_of(bundle)
    refused = storm_build(root, "--tp", 2)
    assert isinstance(refused.exception, TargetError)
    assert "--tp 2 wants as many GPUs, this machine has 1: give --tp 1" in str(refused.exception)
    device.gpus = [H100, H100]
    done = storm_build(root, "--tp", 2)
    assert done.exit_code == 0, done.exception
    assert told(device)[0]["--workers"] == "2"
    load(root, f"{ENGINE}-tp2")
    parallel = device.executors[-1].settings["executor_config"].parallel_config
    assert parallel.communication_mode.value == "ORCHESTRATOR"
    device.gpus = [H100]
    with pytest.raises(EngineError, match="is shared by 2 GPUs, this machine has 1: build it again"):
        load(root, f"{ENGINE}-tp2")


def test_the_device_goes_on_from_the_checkpoint_prepared_elsewhere_without_onnx_or_a_copy(
    device: SimpleNamespace, bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy_of(bundle)
    gpus, device.gpus = device.gpus, []
    assert storm_build(root, "--prepare-only").exit_code == 0
    checkpoint = root / "engines" / ENGINE / "rank0.safetensors"
    prepared = checkpoint.stat().st_ino
    device.gpus = gpus
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [
        n for n in sys.modules if n.startswith(("storm_edge.export.passes", "storm_edge.export.build.prepare"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "storm_edge.export.build.tensorrt_llm.checkpoint", raising=False)
    done = storm_build(root)
    assert done.exit_code == 0, done.exception
    assert checkpoint.stat().st_ino == prepared
    record = read_engine(Bundle.open(root), ENGINE)
    assert f"engines/{ENGINE}/rank0.safetensors" in record.files


def test_a_prepared_checkpoint_that_was_changed_is_not_compiled(
    device: SimpleNamespace, bundle: Path, copy_of: Copy
) -> None:
    root = copy_of(bundle)
    assert storm_build(root, "--prepare-only").exit_code == 0
    flip(root / "engines" / ENGINE / "rank0.safetensors")
    done = storm_build(root)
    assert isinstance(done.exception, EngineError)
    assert "rank0.safetensors is damaged: delete" in str(done.exception)
    assert told(device) == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: flip(folder / "rank0.engine"), "rank0.engine is damaged"),
        (lambda folder: flip(folder.parent / "rank0.safetensors"), "rank0.safetensors is damaged"),
        (lambda folder: (folder / "rank0_managed_weights.safetensors").touch(), "holds 'rank0_managed_weights"),
        (lambda folder: (folder / "rank0.engine").unlink(), "rank0.engine is missing"),
    ],
)
def test_an_engine_whose_files_are_not_those_of_its_record_is_not_loaded(
    damage: Callable[[Path], None], said: str, device: SimpleNamespace, bundle: Path, copy_of: Copy
) -> None:
    root = copy_of(bundle)
    assert storm_build(root).exit_code == 0
    damage(root / "engines" / ENGINE / "engine")
    with pytest.raises(EngineError, match=said):
        load(root, ENGINE)


def test_an_engine_of_another_version_of_the_package_is_not_loaded(
    device: SimpleNamespace, bundle: Path, copy_of: Copy
) -> None:
    root = copy_of(bundle)
    assert storm_build(root).exit_code == 0
    device.version = "1.2.0"
    with pytest.raises(EngineError, match=r"by tensorrt_llm 1\.2\.1, this machine has 1\.2\.0: build it again"):
        load(root, ENGINE)
    device.version = None
    with pytest.raises(EngineError, match="tensorrt_llm is not installed: pip install"):
        load(root, ENGINE)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("print('[TRT] [E] Error Code 2: OutOfMemory'); sys.exit(1)", "trtllm-build failed: the memory ran out"),
        ("sys.exit('CUDA error: no kernel image is available')", "trtllm-build failed: this GPU has no such kernels"),
        ("os.kill(os.getpid(), 9)", "trtllm-build failed: it was ended by signal 9"),
    ],
)
def test_a_compiler_that_fails_leaves_the_prepared_engine_and_its_log(
    script: str, said: str, device: SimpleNamespace, bundle: Path, copy_of: Copy, user_folders: Path
) -> None:
    root = copy_of(bundle)
    device.script.write_text(script)
    done = storm_build(root)
    assert isinstance(done.exception, BuildError)
    assert said in str(done.exception)
    log = user_folders / "cache" / "storm-edge" / "trtllm-build" / f"{ENGINE}.log"
    assert f"(all it said is in {log})" in str(done.exception)
    assert log.read_text().startswith("trtllm-build --checkpoint_dir")
    assert read_engine(Bundle.open(root), ENGINE).state == "prepared"
    assert [p.name for p in (root / "engines").iterdir() if p.name.startswith(".")] == []


def test_an_engine_that_runs_outlives_a_compiler_that_fails(
    device: SimpleNamespace, bundle: Path, copy_of: Copy
) -> None:
    root = copy_of(bundle)
    assert storm_build(root).exit_code == 0
    before = read_engine(Bundle.open(root), ENGINE)
    device.script.write_text("sys.exit('Error: no')")
    assert isinstance(storm_build(root, "--max-frames", 8).exception, BuildError)
    assert read_engine(Bundle.open(root), ENGINE) == before
    load(root, ENGINE)


def test_without_the_package_the_checkpoint_is_prepared_and_the_command_shown(
    device: SimpleNamespace, bundle: Path, copy_of: Copy
) -> None:
    root = copy_of(bundle)
    device.version = None
    done = storm_build(root)
    assert isinstance(done.exception, TargetError)
    said = str(done.exception)
    assert "prepared, but tensorrt_llm is not installed: install 1.2.1" in said
    assert len(said) < LONGEST  # the command is whole
    assert f"run `trtllm-build --checkpoint_dir {root}/engines/{ENGINE} " in said
    assert read_engine(Bundle.open(root), ENGINE).state == "prepared"


def test_a_line_of_the_package_without_engines_is_refused_before_any_work(
    device: SimpleNamespace, bundle: Path, copy_of: Copy
) -> None:
    root = copy_of(bundle)
    device.version = "1.3.0rc20"
    done = storm_build(root)
    assert isinstance(done.exception, EngineError)
    assert "1.3.0rc20 has no compiled engines any more, its engine path was removed with 1.3" in str(done.exception)
    assert not (root / "engines" / ENGINE).exists()
    assert storm_build(root, "--prepare-only").exit_code == 0  # for another machine


def test_every_choice_of_a_language_model_is_a_runner_with_a_module_that_makes_its_files() -> None:
    for name in target("h100").llm_choices:
        module = importlib.import_module(RUNNERS[name].language)
        assert all(callable(getattr(module, f)) for f in ("judge", "version", "prepare", "compile", "by_hand"))
