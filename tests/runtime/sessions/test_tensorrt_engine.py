from __future__ import annotations

import ctypes
import mmap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_tensorrt
import numpy as np
import pytest

from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.sessions import tensorrt, tensorrt_engine
from storm_edge.runtime.sessions.device import HOST
from storm_edge.runtime.sessions.tensorrt_engine import TensorRTEngine

FRAMES = np.zeros((8, 64, 64, 3), np.uint8)


def one_line(error: Any) -> str:
    """An error's message, which is one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


def test_an_engine_file_is_mapped_and_not_read_into_memory(machine: Any, engines: Any) -> None:
    Stages.load(*engines())
    assert machine.tensorrt.read == [mmap.mmap] * 3


def test_activations_take_one_block_as_large_as_the_shapes_in_use_need(machine: Any, engines: Any) -> None:
    opened, record = engines()
    before = machine.gpu.taken
    stages = Stages.load(opened, record)
    loaded = machine.gpu.taken - before
    llm = opened.config.llm
    cache = 2 * llm.num_hidden_layers * llm.num_key_value_heads * 128 * llm.head_dim * 4
    assert loaded < cache + 2**20  # nothing for activations yet, and the cache once
    stages.device.host(stages.temporal(stages.vision(FRAMES)))
    blocks = {context.memory for context in machine.tensorrt.made if context.memory}
    assert len(blocks) == 1
    needed = fake_tensorrt.activations({"frames": FRAMES.shape})
    assert stages.device.scratch(0) in blocks
    assert needed in {context.given for context in machine.tensorrt.made}


def test_the_block_grows_with_the_shapes_and_everything_moves_to_the_larger_one(machine: Any, engines: Any) -> None:
    stages = Stages.load(*engines())
    first = stages.vision(FRAMES[:1])
    blocks = [{context.memory for context in machine.tensorrt.made if context.memory}]
    again = stages.vision(np.concatenate([FRAMES[:1], FRAMES[1:] + 9]))
    blocks.append({context.memory for context in machine.tensorrt.made if context.memory})
    assert [len(of) for of in blocks] == [1, 1]
    assert blocks[0] != blocks[1]
    np.testing.assert_allclose(stages.device.host(again)[:1], stages.device.host(first), atol=1e-5)


def test_a_context_for_which_there_is_no_room_is_one_line_that_says_what_to_do(machine: Any, engines: Any) -> None:
    machine.tensorrt.contexts = 1
    with pytest.raises(
        EngineError, match=r"cannot make a context for .*OutOfMemory.*: take fewer .* `storm plan`"
    ) as e:
        Stages.load(*engines())
    one_line(e)


def test_memory_that_runs_out_is_one_line_that_says_what_to_do(machine: Any, engines: Any) -> None:
    stages = Stages.load(*engines())
    machine.gpu.others = machine.gpu.total - machine.gpu.taken
    with pytest.raises(
        EngineError, match=r"GPU has not enough memory \(Out of memory .*: take fewer .* `storm plan`"
    ) as e:
        stages.vision(FRAMES)
    one_line(e)
    machine.gpu.others = 0
    stages.device.host(stages.vision(FRAMES))  # and goes on where there is room again


def test_an_engine_that_cannot_be_read_says_what_tensorrt_said(machine: Any, engines: Any) -> None:
    opened, record = engines()
    opened.located(record.graphs["temporal"]).write_text("no engine")
    with pytest.raises(EngineError, match=r"cannot load .*temporal\.engine \(.*magicTag failed.*storm build") as e:
        Stages.load(opened, record)
    one_line(e)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library that stands for the plugin's."""
    path = tmp_path / "libstorm_tensorrt.so"
    path.write_bytes(b"plugin")
    monkeypatch.setattr(tensorrt, "find_library", lambda kind: path)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(storm_tensorrt_major=lambda: 10))
    return path


def test_the_plugin_is_loaded_once_a_process(machine: Any, engines: Any, plugin: Path) -> None:
    opened, record = engines()
    with_plugin = record.model_copy(update={"plugin_sha256": tensorrt.file_sha256(plugin)})
    for _ in range(2):
        Stages.load(opened, with_plugin)
    assert machine.tensorrt.libraries == [str(plugin)]


def test_tensorrt_for_rtx_settles_its_kernels_before_the_step_is_captured(machine: Any, engines: Any) -> None:
    Stages.load(*engines(**dict.fromkeys(("vision", "temporal", "decoder"), "tensorrt-rtx")))
    made = machine.tensorrt.made
    assert len(machine.tensorrt.specialized) == len(made)
    assert machine.tensorrt.specialized.count("eager") == 1
    assert {context.strategy for context in made} == {fake_tensorrt.Strategy.USER_MANAGED}


@pytest.mark.parametrize(
    ("fake", "name"),
    [
        (fake_tensorrt.Engine, "ICudaEngine"),
        (fake_tensorrt.Context, "IExecutionContext"),
        (fake_tensorrt.RuntimeConfig, "IRuntimeConfig"),
    ],
)
def test_the_fake_has_the_names_of_the_package(fake: type, name: str) -> None:
    package = pytest.importorskip("tensorrt_rtx")
    methods = {n for n in vars(fake) if not n.startswith("_") and n != "strategy"}
    assert methods - set(dir(getattr(package, name))) == set()


def test_what_tensorrt_for_rtx_says_of_a_file_that_is_no_engine_reaches_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = pytest.importorskip("tensorrt_rtx")
    tensorrt_engine._runtime.cache_clear()
    (tmp_path / "x.engine").write_bytes(b"no engine" * 100)
    device: Any = HOST
    with pytest.raises(EngineError, match=r"cannot load .*x\.engine \(.*magicTag.*build it again here") as error:
        TensorRTEngine(tmp_path / "x.engine", "tensorrt_rtx", package.__version__, device)
    one_line(error)
