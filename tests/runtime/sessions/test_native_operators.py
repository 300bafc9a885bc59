from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from storm_edge.plugins import libraries
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession


def test_the_temporal_encoder_gives_the_same_with_native_operators(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if libraries.find_library(libraries.ONNXRUNTIME) is None:
        pytest.skip(f"{libraries.ONNXRUNTIME} is not built: run `make plugin`, which says what it lacks")
    graph = bundle / "graphs" / "temporal.onnx"
    tokens = np.random.default_rng(0).standard_normal((1, 8, 16, 128), dtype=np.float32)
    native = OnnxRuntimeSession(graph).run(tokens=tokens)["visual_tokens"]
    monkeypatch.setenv("STORM_PLUGIN_PATH", "")
    function = OnnxRuntimeSession(graph).run(tokens=tokens)["visual_tokens"]
    np.testing.assert_allclose(native, function, rtol=1e-4, atol=1e-5)
    assert not np.array_equal(native, function)  # rounded elsewhere: the native operators did run


def test_a_broken_library_is_one_line_that_says_what_to_do(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / libraries.ONNXRUNTIME).write_bytes(b"no library")
    monkeypatch.setenv("STORM_PLUGIN_PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"cannot load the operators in .*: run `make plugin` again") as broken:
        OnnxRuntimeSession(bundle / "graphs" / "temporal.onnx")
    assert "\n" not in str(broken.value)
