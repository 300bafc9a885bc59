"""`storm build --llm vllm`: prepared here; verified and run on a machine that is made up.

Made up are the GPU, TensorRT's compiler and sessions (ONNX Runtime runs the prepared graphs in their place), and the
package vllm by its recorded description, behind which transformers reads the folder that was written.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from storm_edge.cli.build import command
from storm_edge.export.build import build as building
from storm_edge.export.build.tensorrt import build as compiling
from storm_edge.export.build.tensorrt import build as tensorrt_build
from storm_edge.export.build.tensorrt import engines
from storm_edge.export.build.tensorrt.compile_job import CompileJob, CompileResult
from storm_edge.export.build.vllm import build as llm_build
from storm_edge.runtime import SamplingOptions, load
from storm_edge.runtime.bundle.contents import unlisted_files
from storm_edge.runtime.bundle.engine import check_engine_hashes, read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import BuildError, EngineError, StormError, TargetError, UsageError
from storm_edge.runtime.llm import language_folder, vllm
from storm_edge.runtime.machine.probe import Gpu, Machine
from storm_edge.runtime.runners import RUNNERS
from storm_edge.runtime.sessions.device import HOST
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession

Copy = Callable[[Path], Path]
RECORDED = Path(__file__).parents[3] / "runtime" / "llm"
H100 = Gpu("NVIDIA H100 80GB HBM3", 90)
ENGINE = "h100-fp16-vllm-bf16"


@pytest.fixture(autouse=True)
def no_plugin() -> Iterator[None]:
    """The GPUs of these tests are made up, and so are the encoders' engines: they need no plugin (see test_plugin)."""
    with pytest.MonkeyPatch.context() as patch:  # of its own: a test undoes the other
        patch.setattr(tensorrt_build, "plugin_for", lambda bundle, goal: None)
        yield


def storm_build(root: Path, *words: object, where: str = "h100") -> Result:
    arguments = [root, "--target", where, "--llm", "vllm", "--max-frames", 16, *words]
    return CliRunner().invoke(command, [*map(str, arguments)], obj={"verbose": False, "quiet": False})


def machine(*gpus: Gpu) -> Machine:
    return Machine(gpus, *(None, None, None, None, False, None, None, None, None))


@pytest.mark.parametrize(("precision", "tp", "words"), [("bf16", 1, ()), ("fp16", 2, ()), ("int4", 1, ())])
def test_the_folder_is_prepared_without_the_package(
    precision: str, tp: int, words: tuple[object, ...], bundle: Path, copy_of: Copy
) -> None:
    root = copy_of(bundle)
    done = storm_build(root, "--llm-precision", precision, "--tp", tp, *words, "--prepare-only", "--json")
    assert done.exit_code == 0, done.exception
    name = f"h100-fp16-vllm-{precision}" + (f"-tp{tp}" if tp > 1 else "")
    opened = Bundle.open(root)
    record = read_engine(opened, name)
    assert (record.state, record.tp, record.llm_precision) == ("prepared", tp, precision)
    assert record.runners == {"vision": "tensorrt", "temporal": "tensorrt", "decoder": "vllm"}
    assert record.graphs["decoder"] == f"engines/{name}/config.json"
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    assert {f for f in record.files if f.startswith("engines/")} == {f"engines/{name}/{n}" for n in names}
    check_engine_hashes(opened, record)
    assert unlisted_files(opened) == []
    config = json.loads((root / "engines" / name / "config.json").read_text())
    assert ("quantization_config" in config) == (precision == "int4")


def test_the_command_for_the_device_and_the_one_that_serves_the_folder_are_shown(bundle: Path, copy_of: Copy) -> None:
    root = copy_of(bundle)
    done = storm_build(root, "--tp", 2, "--max-length", 512, "--prepare-only")
    device = f"storm build {root} --target h100 --precision fp16 --llm-precision bf16 --llm vllm --tp 2"
    assert f"on the device: `{device} --max-frames 16 --max-length 512`." in done.output
    serve = f"`vllm serve {root}/engines/{ENGINE}-tp2 --enable-prompt-embeds --load-format safetensors"
    assert f"{serve} --max-model-len 512 --tensor-parallel-size 2`" in done.output


@pytest.mark.parametrize(
    ("where", "words", "error", "said"),
    [
        ("h100", ("--tp", 8), TargetError, r"--tp 8: 4 attention heads cannot be shared among 8 ranks \(4 / 8 = 0.5\)"),
        ("h100", ("--llm-precision", "int8"), TargetError, "vLLM runs no language model in int8: use"),
        ("h100", ("--llm-precision", "fp8"), BuildError, "did not observe the language model"),
        ("a100", ("--llm-precision", "fp8"), TargetError, "they start at SM 89"),
        ("h100", ("--stages", "vision,temporal"), UsageError, "--llm vllm is for the language model"),
        ("orin", (), TargetError, "orin has no --llm vllm: choose tensorrt."),
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


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with H100s, TensorRT and vllm, all made up; `package` is the recorded one."""
    monkeypatch.syspath_prepend(str(RECORDED))
    package = importlib.import_module("recorded_vllm").recorded()
    made = SimpleNamespace(gpus=[H100], package=package)
    for module in (building, language_folder):
        monkeypatch.setattr(module, "probe", lambda: machine(*made.gpus))
    row = replace(RUNNERS["tensorrt"], device="cpu", session="made_up_tensorrt:InPlaceOfTensorRT")
    monkeypatch.setitem(RUNNERS, "tensorrt", row)
    monkeypatch.setitem(sys.modules, "made_up_tensorrt", SimpleNamespace(InPlaceOfTensorRT=InPlaceOfTensorRT))
    monkeypatch.setattr(compiling, "require_package", lambda _: "10.14.1.48")
    monkeypatch.setattr(engines, "timing_cache", lambda _: tmp_path / "timing")
    monkeypatch.setattr(engines, "compile_graph", compile_in_place_of_tensorrt)
    monkeypatch.setattr(llm_build, "require_package", lambda _: "0.33.0")
    monkeypatch.setattr(vllm, "package_names", lambda: package)
    return made


def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


def test_a_machine_with_the_gpus_and_the_package_makes_an_engine_that_answers(
    device: SimpleNamespace, bundle: Path, copy_of: Copy
) -> None:
    root = copy_of(bundle)
    device.gpus = [H100, H100]
    name = f"{ENGINE}-tp2"
    done = storm_build(root, "--tp", 2, "--max-length", 512)
    assert done.exit_code == 0, done.exception
    opened = Bundle.open(root)
    record = read_engine(opened, name)
    assert (record.state, record.verified, record.versions["vllm"]) == ("built", True, "0.33.0")
    assert {r.stage for r in record.verification} >= {"vision", "temporal", "decoder", "chain decoder"}
    assert record.graphs["decoder"] == f"engines/{name}/config.json"
    assert unlisted_files(opened) == []
    pipeline = load(root, name)
    args = device.package.made[-1].args
    assert (args.tensor_parallel_size, args.max_model_len) == (2, 512)
    greedy = SamplingOptions(max_tokens=8)
    video = pipeline.open(frames(), frames=8)
    first = video.ask("Which way?", greedy)
    assert len(first.read()) > 0
    assert (first.stats.answer_tokens, first.stats.reused_tokens) == (8, 0)
    again = video.ask("Which way?", greedy)
    assert again.read() == first.text
    assert again.stats.reused_tokens > 0
    loaded = len(device.package.made)
    assert storm_build(root, "--tp", 2, "--max-length", 512).exit_code == 0
    assert len(device.package.made) == loaded  # nothing is built or verified twice
    device.gpus = [H100]
    with pytest.raises(EngineError, match="is shared by 2 GPUs, this machine has 1"):
        load(root, name)


def test_a_file_that_the_record_does_not_list_is_not_loaded(
    device: SimpleNamespace, bundle: Path, copy_of: Copy
) -> None:
    root = copy_of(bundle)
    assert storm_build(root).exit_code == 0
    (root / "engines" / ENGINE / "model-2.safetensors").write_bytes(b"more weights")
    with pytest.raises(EngineError, match=r"holds 'model-2\.safetensors' against its record: build it again"):
        load(root, ENGINE)


def test_more_gpus_than_there_are_are_refused(device: SimpleNamespace, bundle: Path, copy_of: Copy) -> None:
    done = storm_build(copy_of(bundle), "--tp", 2)
    assert isinstance(done.exception, TargetError)
    assert "--tp 2 wants as many GPUs, this machine has 1: give --tp 1, or --prepare-only" in str(done.exception)


def test_without_the_package_the_folder_is_prepared_and_the_command_shown(
    device: SimpleNamespace, bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(building, "probe", lambda: machine(H100))
    monkeypatch.setattr(compiling, "require_package", lambda _: "10.14.1.48")
    root = copy_of(bundle)
    done = storm_build(root)
    assert isinstance(done.exception, TargetError)
    said = str(done.exception)
    assert (
        f"{ENGINE} is prepared, but the language model cannot be run here: vllm is not installed: pip install" in said
    )
    assert f"run `vllm serve {root}/engines/{ENGINE} --enable-prompt-embeds" in said
    assert read_engine(Bundle.open(root), ENGINE).state == "prepared"
