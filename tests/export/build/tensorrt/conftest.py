"""A `tensorrt` module without TensorRT: what the builder calls, and answers that real versions give.

It knows one network: an input "x" with a dynamic first axis, and the layers it is told. `TensorRT.calls` holds what was
asked of it, in order.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from storm_edge.runtime.machine import tensorrt_plugin

PLAN = b"plan" * 1000


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TensorRT]:
    """fake(**behaviour): the module, which jobs of package "fake_tensorrt" import."""

    def make(**behaviour: Any) -> TensorRT:
        module = TensorRT(**behaviour)
        monkeypatch.setitem(sys.modules, "fake_tensorrt", module)  # type: ignore[arg-type]
        monkeypatch.setattr(tensorrt_plugin, "_loaded", set())
        monkeypatch.setattr(tensorrt_plugin, "_made_for", lambda library: 10)
        return module

    return make


class TensorRT(SimpleNamespace):
    """The module. `streams`: has build_serialized_network_to_stream, as from 10.13 on; `no_cache_of`, `not_taken`: the
    timings it gives None and False for; `layers`: names and types of the network's; `inspected`: what the inspector
    says, None where no engine loads; `says`: what the logger hears; `flags`: what builders of this version can be
    told.
    """

    def __init__(
        self,
        *,
        streams: bool = True,
        no_cache_of: tuple[bytes, ...] = (),
        not_taken: tuple[bytes, ...] = (),
        timings: bytes | None = b"timings",
        layers: tuple[tuple[str, str], ...] = (),
        inspected: list[Any] | None = None,
        says: tuple[str, ...] = (),
        flags: tuple[str, ...] = (),
    ) -> None:
        self.__version__ = "10.13.0" if streams else "10.3.0"
        self.plan = PLAN
        self.calls: list[Any] = []
        self._no_cache_of, self._not_taken, self._timings = no_cache_of, not_taken, timings
        self._layers, self._inspected, self._says, self._streams = layers, inspected, says, streams
        self.ILogger = type("ILogger", (), {"ERROR": 1, "WARNING": 2, "INFO": 3})
        self.IProgressMonitor = type("IProgressMonitor", (), {})
        self.IStreamWriter = type("IStreamWriter", (), {})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.LayerType = SimpleNamespace(PLUGIN_V3="PLUGIN_V3", SOFTMAX="SOFTMAX", ATTENTION_INPUT="ATTENTION_INPUT")
        self.BuilderFlag = SimpleNamespace(**{flag: flag for flag in flags})
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="WORKSPACE", TACTIC_DRAM="TACTIC_DRAM")
        self.ProfilingVerbosity = SimpleNamespace(DETAILED="DETAILED")
        self.LayerInformationFormat = SimpleNamespace(JSON="JSON")

    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> None:
        pass

    def get_plugin_registry(self) -> Any:
        return SimpleNamespace(load_library=lambda path: object())

    def Builder(self, logger: Any) -> Any:
        builder = SimpleNamespace(
            create_network=lambda flags: self._network(),
            create_builder_config=self._config,
            create_optimization_profile=self._profile,
            build_serialized_network=lambda network, config: self._plan(logger),
        )
        if self._streams:
            builder.build_serialized_network_to_stream = lambda n, c, writer: self._stream(logger, writer)
        return builder

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        return SimpleNamespace(parse=lambda content, path: True, num_errors=0)

    def Runtime(self, logger: Any) -> Any:
        def deserialize(content: Any) -> Any:
            self.calls.append("load")
            assert bytes(content) == PLAN
            if self._inspected is None:
                return None
            told = json.dumps({"Layers": self._inspected, "Bindings": []})
            return SimpleNamespace(
                create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda form: told)
            )

        return SimpleNamespace(deserialize_cuda_engine=deserialize)

    def _network(self) -> Any:
        x = SimpleNamespace(name="x", shape=(-1, 4))
        layers = [SimpleNamespace(name=name, type=kind) for name, kind in self._layers]
        return SimpleNamespace(
            num_inputs=1, get_input=lambda i: x, num_layers=len(layers), get_layer=lambda i: layers[i]
        )

    def _config(self) -> Any:
        return Config(self)

    def _profile(self) -> Any:
        profile = SimpleNamespace(shapes={})
        profile.set_shape = lambda name, low, usual, high: profile.shapes.update({name: (low, usual, high)})
        return profile

    def _plan(self, logger: Any) -> bytes:
        self._speak(logger)
        self.calls.append("plan")
        return PLAN

    def _stream(self, logger: Any, writer: Any) -> bool:
        self._speak(logger)
        self.calls.append("stream")
        pieces = [PLAN[i : i + 1500] for i in range(0, len(PLAN), 1500)]
        return all(writer.write(piece) == len(piece) for piece in pieces)

    def _speak(self, logger: Any) -> None:
        for message in self._says:
            logger.log(self.ILogger.INFO, message)


class Config:
    """IBuilderConfig."""

    def __init__(self, module: TensorRT) -> None:
        self._module = module
        self.profiling_verbosity: Any = None
        self.limits: dict[str, int] = {}
        self.profiles: list[Any] = []
        self.cache: Any = None
        self.flags: list[str] = []
        module.config = self

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.limits[pool] = size

    def create_timing_cache(self, blob: bytes) -> Any:
        if blob in self._module._no_cache_of:
            return None
        return SimpleNamespace(blob=blob, serialize=lambda: self._module._timings)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.blob in self._module._not_taken:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.cache

    def add_optimization_profile(self, profile: Any) -> int:
        if any(0 in shape for shapes in profile.shapes.values() for shape in shapes):
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1
