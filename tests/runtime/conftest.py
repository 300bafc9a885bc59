"""A GPU with CuPy, TensorRT and ONNX Runtime CUDA that are not there, and engines for them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.tensorrt.profiles import piece_profile
from storm_edge.runtime.bundle.contract import piece_contract
from storm_edge.runtime.bundle.engine import EngineRecord, read_engine
from storm_edge.runtime.bundle.manifest import STAGES, Bundle
from storm_edge.runtime.machine import memory, tensorrt_plugin
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.runners import RUNNERS
from storm_edge.runtime.sessions import tensorrt, tensorrt_engine

sys.path.insert(0, str(Path(__file__).parent))  # for the fakes beside this file

import fake_cupy
import fake_onnxruntime
import fake_tensorrt

LENGTH = 128  # tokens of the fake engine's key-value cache


@dataclass
class Machine:
    """The GPU, what TensorRT has done in this process, and the modules."""

    gpu: fake_cupy.Gpu
    tensorrt: fake_tensorrt.Process
    cupy: object


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine with a GPU whose work is done late."""
    gpu = fake_cupy.Gpu()
    process = fake_tensorrt.Process(gpu)
    modules = {
        "cupy": fake_cupy.cupy_of(gpu),
        "tensorrt": fake_tensorrt.tensorrt_of(process),
        "tensorrt_rtx": fake_tensorrt.tensorrt_of(process, rtx=True),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(tensorrt_plugin, "_loaded", set())
    tensorrt_engine._runtime.cache_clear()
    yield Machine(gpu, process, modules["cupy"])
    tensorrt_engine._runtime.cache_clear()


@pytest.fixture
def process(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> fake_onnxruntime.Process:
    """The same machine with ONNX Runtime CUDA."""
    process = fake_onnxruntime.Process(machine.gpu)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_onnxruntime.onnxruntime_of(process))
    monkeypatch.setattr(memory, "_device_peak", 0)
    return process


@pytest.fixture(scope="session")
def for_cuda(bundle: Path) -> Path:
    """A copy of the bundle with the engine cuda-fp16, prepared; do not change it."""
    path = Path(shutil.copytree(bundle, bundle.parent / "for-cuda" / "bundle"))
    build(Bundle.open(path), target("cuda"), BuildOptions("fp16", "fp16", prepare_only=True, max_length=256))
    return path


@pytest.fixture
def on_cuda(for_cuda: Path, process: fake_onnxruntime.Process) -> tuple[Bundle, EngineRecord]:
    """That engine as it is where its GPU is."""
    opened = Bundle.open(for_cuda)
    return opened, read_engine(opened, "cuda-fp16").model_copy(update={"state": "built"})


Engines = Callable[..., tuple[Bundle, EngineRecord]]


@pytest.fixture
def engines(bundle: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> Engines:
    """Makes a bundle with an engine of the fake TensorRT: runners by stage, the decoder's profiles, and whether its
    temporal encoder has pieces.
    """
    monkeypatch.setattr(tensorrt, "find_library", lambda kind: None)
    monkeypatch.setattr(memory, "_device_peak", 0)

    def make(
        two_profiles: bool = False, least: int = 2, pieces: bool = False, **runners: str
    ) -> tuple[Bundle, EngineRecord]:
        opened = Bundle.open(copy_of(bundle))
        record = read_engine(opened, "cpu-fp32")
        config = opened.config
        side, k, width = config.vision.image_size, config.reduction.temporal_pool, config.llm.hidden_size
        n = config.tokens_per_frame

        def tokens(least: int, most: int) -> dict[str, list[list[int]]]:
            shapes = {"inputs_embeds": (width,), "position_ids": ()}
            return {x: [[1, least, *s], [1, least, *s], [1, most, *s]] for x, s in shapes.items()}

        cache = [1, config.llm.num_key_value_heads, LENGTH, config.llm.head_dim]
        names = [f"{kind}_{i}" for kind in ("key", "value") for i in range(config.llm.num_hidden_layers)]
        profiles = {
            "vision": [{"frames": [[1, side, side, 3], [8, side, side, 3], [16, side, side, 3]]}],
            "temporal": [{"tokens": [[1, k, n, width], [1, 8, n, width], [1, 64, n, width]]}],
            "decoder": [tokens(1, 1), tokens(least, 48)] if two_profiles else [tokens(1, 48)],
        }
        fixed = {f"{side}_{name}": cache for side in ("past", "present") for name in names}
        graphs = dict(record.graphs)
        for stage in STAGES:
            if RUNNERS[runners.get(stage, "tensorrt")].compiles:
                path = opened.root / "engines" / f"{stage}.engine"
                graph = opened.path(opened.manifest.graphs[stage].file)
                fake_tensorrt.write_engine(path, graph, profiles[stage], fixed if stage == "decoder" else None)
                graphs[stage] = str(path.relative_to(opened.root))
        cut = {}
        for name, graph in record.pieces.items() if pieces else ():
            path = opened.root / "engines" / f"temporal.{name}.engine"
            sizes = {key: list(shapes.model_dump().values()) for key, shapes in piece_profile(config, name).items()}
            takes = {spec.name for spec in piece_contract(config, "float32", name)[0]}
            fake_tensorrt.write_engine(path, opened.path(graph), [{k: v for k, v in sizes.items() if k in takes}])
            cut[name] = str(path.relative_to(opened.root))
        update = {
            "graphs": graphs,
            "pieces": cut,
            "runners": dict.fromkeys(STAGES, "tensorrt") | runners,
            "versions": {"tensorrt": fake_tensorrt.VERSION},
            "max_length": LENGTH,
        }
        return opened, record.model_copy(update=update)

    return make
