from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession


def test_tensors_of_any_dlpack_library_go_in(bundle: Path) -> None:
    session = OnnxRuntimeSession(bundle / "graphs" / "vision.onnx")
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    ours = session.run(frames=frames)["tokens"]
    np.testing.assert_array_equal(ours, session.run(frames=torch.from_numpy(frames))["tokens"])
    assert (ours.shape, ours.dtype) == ((2, 16, 128), np.float32)


def test_wrong_inputs_and_damaged_graphs_are_engine_errors_of_one_line(bundle: Path, tmp_path: Path) -> None:
    session = OnnxRuntimeSession(bundle / "graphs" / "vision.onnx")
    with pytest.raises(EngineError, match=r"vision\.onnx failed to run") as wrong:
        session.run(frames=np.zeros((1, 32, 32, 3), np.uint8))
    (tmp_path / "g.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"cannot load .*g\.onnx") as damaged:
        OnnxRuntimeSession(tmp_path / "g.onnx")
    assert "\n" not in str(wrong.value) + str(damaged.value)


def test_without_onnx_runtime_the_error_names_the_extra(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"ONNX Runtime is not installed: pip install 'storm-edge\[cpu\]'"):
        load(bundle)


def test_onnx_runtime_starts_no_telemetry_and_writes_no_files(bundle: Path, tmp_path: Path) -> None:
    code = "import sys; from storm_edge.runtime import load; load(sys.argv[1])"
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | places
    subprocess.run([sys.executable, "-c", code, str(bundle)], env=environment, cwd=tmp_path, check=True)
    ours = tmp_path / "storm-edge"  # which hashes of this bundle were checked
    assert [path for path in tmp_path.iterdir() if path != ours] == []


def test_a_second_run_takes_no_more_memory_than_the_first(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    config = opened.config
    script = f"""
import numpy as np
from pathlib import Path
from storm_edge.runtime.machine.memory import peak_memory_bytes
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession
session = OnnxRuntimeSession(Path({str(opened.graph("temporal"))!r}), 1)
tokens = np.ones((1, 512, {config.tokens_per_frame}, {config.llm.hidden_size}), np.float32)
for run in range(4):
    print(peak_memory_bytes())
    session.run(tokens=tokens)
print(peak_memory_bytes())
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded, first, *_, last = map(int, done.stdout.split())
    assert first - loaded > 30 << 20
    assert last - first < (first - loaded) / 8


def test_inputs_become_what_the_graph_takes(bundle: Path) -> None:
    session = OnnxRuntimeSession(Bundle.open(bundle).graph("temporal"), 1)
    tokens = np.random.default_rng(0).standard_normal((1, 4, 16, 128)).astype("bfloat16")
    ours, expected = (session.run(tokens=x)["visual_tokens"] for x in (tokens, tokens.astype(np.float32)))
    np.testing.assert_array_equal(ours, expected)
