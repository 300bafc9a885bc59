"""An engine of ONNX Runtime CUDA on a GPU whose work is done late, held against PyTorch's record and the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.contract import TensorSpec
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.proof.verify import verify
from storm_edge.runtime.sessions.cuda import CudaDevice
from storm_edge.runtime.sessions.onnxruntime_cuda import CudaGraph, OnnxRuntimeCudaSession

CLIP = np.random.default_rng(0).integers(0, 256, (22, 64, 64, 3), dtype=np.uint8)


def waits(process: Any) -> int:
    return sum(stream.synchronized for stream in process.gpu.streams.values())


def test_the_engine_gives_what_pytorch_recorded(process: Any, on_cuda: Any) -> None:
    results = verify(*on_cuda)
    assert {result.stage for result in results} >= {"vision", "temporal", "decoder"}
    assert [result for result in results if not result.passed] == []


def test_all_sessions_of_a_pipeline_are_in_its_stream_and_take_no_more_memory_than_they_need(
    process: Any, on_cuda: Any
) -> None:
    device = Stages.load(*on_cuda).device
    assert isinstance(device, CudaDevice)
    assert {s.settings["user_compute_stream"] for s in process.sessions} == {str(device.stream)}
    assert {s.settings["arena_extend_strategy"] for s in process.sessions} == {"kSameAsRequested"}
    assert process.preloaded > 0


def test_nothing_leaves_the_gpu_between_frames_and_the_prompts_rows_and_nobody_waits(
    process: Any, on_cuda: Any
) -> None:
    stages = Stages.load(*on_cuda)
    rows = stages.rows(stages.temporal(stages.vision(CLIP)), None)
    assert (process.gpu.to_host, waits(process)) == ([], 0)
    assert process.gpu.dispatched == []
    assert np.isfinite(stages.device.host(rows)).all()
    assert (process.gpu.to_host, waits(process)) == ([rows.nbytes], 1)  # type: ignore[attr-defined]


def test_a_later_run_leaves_what_an_earlier_one_gave(on_cuda: Any) -> None:
    stages = Stages.load(*on_cuda)
    first = stages.vision(CLIP[:8])
    stages.vision(CLIP[8:16])
    again = stages.vision(CLIP[:8])
    np.testing.assert_array_equal(stages.device.host(first), stages.device.host(again))


def test_the_pieces_give_what_the_whole_encoder_gives(process: Any, on_cuda: Any) -> None:
    stages = Stages.load(*on_cuda)
    tokens = stages.vision(CLIP[:16])
    whole = stages.temporal(tokens)
    assert stages.temporal_encoder.has_pieces
    chunked = stages.temporal_encoder.in_chunks([tokens], 4)
    assert (process.gpu.to_host, waits(process)) == ([], 0)
    ours, theirs = stages.device.host(chunked), stages.device.host(whole)
    np.testing.assert_allclose(ours, theirs, atol=2e-2)


def test_bfloat16_goes_in_as_bits_and_comes_out_as_fp32(process: Any, tmp_path: Path, bundle: Path) -> None:
    from storm_edge.runtime.bundle.manifest import Bundle

    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (bfloat16[1, tokens, 3] x) => (bfloat16[1, tokens, 3] y)'
        "{ y = Identity(x) }"
    )
    onnx.save(graph, tmp_path / "graph.onnx")
    loaded = CudaGraph(tmp_path / "graph.onnx", CudaDevice())
    (x,), (y,) = ([TensorSpec(name=n, dtype="bfloat16", shape=[1, "tokens", 3])] for n in "xy")
    session = OnnxRuntimeCudaSession(loaded, Bundle.open(bundle).config, [x], [y])
    found = session.run(x=np.array([[[1, -2.5, 1 / 3]]], np.float32))["y"]
    assert found.dtype == "float32"
    np.testing.assert_allclose(session.device.host(found), [[[1, -2.5, 1 / 3]]], rtol=2**-8)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"providers": ("CPUExecutionProvider",)}, "has no CUDA: pip uninstall onnxruntime"),
        ({"loads": False}, "cannot load CUDA's libraries or cuDNN"),
        ({"operators_on": "CPUExecutionProvider"}, "have no CUDA form here"),
        ({"expanded": True}, "have no CUDA form here"),
    ],
)
def test_what_would_run_on_the_processor_is_refused_in_one_line(
    changed: dict[str, Any], said: str, process: Any, on_cuda: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in changed.items():
        setattr(process, name, value)
    with pytest.raises(EngineError, match=said) as caught:
        Stages.load(*on_cuda)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_release_without_the_kernels_is_refused(process: Any, on_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys.modules["onnxruntime"], "__version__", "1.26.0")
    with pytest.raises(EngineError, match=r"onnxruntime-gpu 1\.26\.0 is installed, and this engine needs 1\.31"):
        Stages.load(*on_cuda)


def test_a_run_that_fails_is_one_line_that_says_what_to_do(process: Any, on_cuda: Any) -> None:
    stages = Stages.load(*on_cuda)
    process.fails = "bfc_arena.cc: Available memory of 1024\nis smaller than requested bytes of 4096"
    with pytest.raises(EngineError, match=r"vision\.onnx failed to run \(bfc_arena.*take fewer frames") as caught:
        stages.vision(CLIP[:8])
    assert "\n" not in str(caught.value)
