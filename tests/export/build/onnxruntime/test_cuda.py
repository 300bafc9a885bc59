"""Building for ONNX Runtime CUDA: here without a GPU, and on a machine with one, which is made up."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storm_edge.export.build import build as building
from storm_edge.export.build.build import build
from storm_edge.export.build.onnxruntime import cuda
from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.bundle.engine import EngineRecord, engine_names, read_engine
from storm_edge.runtime.bundle.manifest import STAGES, Bundle
from storm_edge.runtime.errors import EngineError, ParityError, StormError, TargetError, UsageError
from storm_edge.runtime.machine.probe import Gpu, probe
from storm_edge.runtime.machine.targets import target

PREPARE = BuildOptions(prepare_only=True, max_length=256)
Copy = Callable[[Path], Path]


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(probe(), gpus=())
    monkeypatch.setattr(building, "probe", lambda: found)


@pytest.fixture
def with_gpu(without_gpu: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Any]]:
    """Gives this machine a GPU of a compute capability, with CuPy and ONNX Runtime CUDA."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "runtime"))
    import fake_cupy
    import fake_onnxruntime

    def give(sm: int) -> Any:
        gpu = fake_cupy.Gpu()
        process = fake_onnxruntime.Process(gpu)
        monkeypatch.setitem(sys.modules, "cupy", fake_cupy.cupy_of(gpu))
        monkeypatch.setitem(sys.modules, "onnxruntime", fake_onnxruntime.onnxruntime_of(process))
        monkeypatch.setattr(cuda, "find_library", lambda name: Path(name))
        found = replace(probe(), gpus=(Gpu("Test GPU", sm, "999.01", 80.0),))
        monkeypatch.setattr(building, "probe", lambda: found)
        return process

    return give


@pytest.mark.parametrize(("precision", "llm"), [("fp16", "int4"), ("bf16", "bf16")])
def test_without_a_gpu_the_graphs_are_prepared_and_every_stage_is_checked(
    precision: str, llm: str, bundle: Path, copy_of: Copy
) -> None:
    opened = Bundle.open(copy_of(bundle))
    record = build(opened, target("cuda"), replace(PREPARE, precision=precision, llm_precision=llm))
    assert record == read_engine(opened, "cuda-bf16" if llm == "bf16" else "cuda-fp16-llm-int4")
    assert (record.state, record.verified, record.unchecked) == ("prepared", False, {})
    assert set(record.runners.values()) == {"onnxruntime-cuda"}
    assert {check.stage for check in record.verification} == {*STAGES, "temporal in chunks"}
    assert all(check.passed for check in record.verification)
    assert record.max_length == 256
    assert set(record.pieces) >= {"0.enter", "0.states", "0.mix", "pool"}
    # What was widened for the check is gone again.
    graphs = {path.name for path in (opened.root / "graphs").iterdir() if path.name.startswith("cuda-")}
    assert {f"graphs/{name}" for name in graphs} == set(record.files)
    assert record.versions["onnxruntime"].startswith("1.31")


def test_a_wrong_graph_is_found_without_a_gpu(bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    from storm_edge.export.passes import narrow

    whole = narrow.narrow

    def shifted(model: Any, readers: Any, dtype: Any) -> None:
        whole(model, readers, dtype)
        for node in model.graph.node:
            if node.op_type == "Gelu":
                node.op_type = "Tanh"
                node.ClearField("attribute")

    monkeypatch.setattr(narrow, "narrow", shifted)
    opened = Bundle.open(copy_of(bundle))
    with pytest.raises(ParityError):
        build(opened, target("cuda"), replace(PREPARE, precision="fp16", llm_precision="fp16"))
    assert "cuda-fp16" not in engine_names(opened)


def test_without_prepare_only_the_command_for_the_machine_with_a_gpu_is_said(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    options = replace(PREPARE, precision="fp16", llm_precision="fp16", prepare_only=False)
    with pytest.raises(TargetError, match="this machine has no NVIDIA GPU") as caught:
        build(opened, target("cuda"), options)
    assert "--target cuda --precision fp16 --llm-precision fp16 --max-length 256`" in str(caught.value)
    assert read_engine(opened, "cuda-fp16").state == "prepared"


def test_a_machine_with_a_gpu_takes_what_was_prepared_without_onnx_and_verifies_it(
    bundle: Path, copy_of: Copy, with_gpu: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    options = replace(PREPARE, precision="fp16", llm_precision="fp16")
    prepared = build(opened, target("cuda"), options)
    process = with_gpu(90)
    monkeypatch.setitem(sys.modules, "onnx", None)
    for _ in range(2):  # and the second time what was built
        record = build(opened, target("cuda"), replace(options, prepare_only=False))
        assert (record.state, record.verified) == ("built", True)
        assert (record.graphs, record.pieces, record.files) == (prepared.graphs, prepared.pieces, prepared.files)
        assert record.versions["onnxruntime"] == process.version
    assert {check.stage for check in record.verification} > {"vision", "temporal", "decoder"}


def test_an_older_gpu_gets_fp16_by_default_and_no_bf16(
    bundle: Path, copy_of: Copy, with_gpu: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpu(75)
    opened = Bundle.open(copy_of(bundle))
    seen: list[str] = []
    monkeypatch.setattr(cuda, "verified", lambda bundle, record, *_: (seen.append(record.name), record)[1])
    assert isinstance(build(opened, target("cuda"), BuildOptions()), EngineRecord)
    assert seen == ["cuda-fp16"]
    for option in ("precision", "llm_precision"):
        with pytest.raises(TargetError, match=r"SM 75\) has no bf16 units, they start at SM 80: use --.* fp16"):
            build(opened, target("cuda"), replace(BuildOptions(), **{option: "bf16"}))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"precision": "int8"}, TargetError, "use --precision fp16 or bf16"),
        ({"llm_precision": "fp8"}, TargetError, "use --llm-precision"),
        ({"tensorrt": "10.3"}, UsageError, "--tensorrt is for TensorRT targets: leave it out for cuda"),
        ({"sms": (90,)}, UsageError, "--sm is for TensorRT targets"),
        ({"without_plugin": True}, UsageError, "--without-plugin is for TensorRT targets"),
        ({"simulate": True}, UsageError, "--simulate stands in for TensorRT"),
        ({"max_length": 10**9}, TargetError, "--max-length 1000000000 is outside what the model was made for"),
        ({"int4_block": 32}, UsageError, "--int4-block 32 is for int4 weights"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(
    options: dict[str, Any], error: type[StormError], said: str, bundle: Path
) -> None:
    with pytest.raises(error, match=said) as caught:
        build(Bundle.open(bundle), target("cuda"), replace(BuildOptions(prepare_only=True), **options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"providers": ("CPUExecutionProvider",)}, EngineError, "has no CUDA: pip uninstall onnxruntime"),
        ({"version": "1.23.2"}, EngineError, "onnxruntime-gpu 1.23.2 is installed, and this engine needs 1.31"),
        ({}, TargetError, "the operators are not built for ONNX Runtime"),
    ],
)
def test_a_machine_that_lacks_something_is_told_what_before_anything_is_prepared(
    changed: dict[str, Any],
    error: type[StormError],
    said: str,
    bundle: Path,
    with_gpu: Callable[[int], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = with_gpu(90)
    for name, value in changed.items():
        setattr(process, name, value)
    monkeypatch.setattr(sys.modules["onnxruntime"], "__version__", process.version)
    if not changed:
        monkeypatch.setattr(cuda, "find_library", lambda name: None)
    monkeypatch.setattr(cuda, "prepare_here", lambda *_: pytest.fail("it was prepared"))
    with pytest.raises(error, match=said) as caught:
        build(Bundle.open(bundle), target("cuda"), BuildOptions("fp16", "fp16"))
    assert "\n" not in str(caught.value)


def test_without_onnx_and_without_prepared_graphs_the_workstations_command_is_said(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def without_onnx(name: str, *rest: Any) -> Any:
        if name.startswith("storm_edge.export.build.prepare") and not name.endswith("prepared"):
            raise ImportError("No module named 'onnx'", name="onnx")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    with pytest.raises(StormError, match=r"--target cuda .*--prepare-only`, or pip install onnx"):
        build(Bundle.open(bundle), target("cuda"), replace(PREPARE, precision="fp16", llm_precision="fp16"))


def test_a_language_model_too_large_for_this_machines_memory_is_left_unchecked(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "available_bytes", lambda: 1000)
    record = build(Bundle.open(copy_of(bundle)), target("cuda"), replace(PREPARE, precision="fp16"))
    assert set(record.unchecked) == {"decoder"}
    assert "too many for the memory here" in record.unchecked["decoder"]
    assert {check.stage for check in record.verification} == {"vision", "temporal", "temporal in chunks"}
