"""What every kind of session must do. TensorRT's kinds run where it is installed with a GPU: `make test-tensorrt`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.errors import EngineError, UsageError
from storm_edge.runtime.llm.base import LanguageModel
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.onnxruntime import OnnxRuntimeDecoder
from storm_edge.runtime.llm.splice import flatten_visual
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.sessions.base import Session
from storm_edge.runtime.sessions.device import Device, Tensor, open_device
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession

LENGTH = 512
OPTIONS = BuildOptions("fp16", "fp16", max_frames=16, max_length=LENGTH)


class Kind:
    """One way of running graphs, with the tolerance of its precision."""

    def __init__(self, name: str, bundle: Bundle, folder: Path):
        self.name, self.bundle, self.folder = name, bundle, folder
        self.tolerance = 1e-4 if name == "onnxruntime" else 2e-2
        self.device: Device = open_device("cpu" if name == "onnxruntime" else "cuda")

    def session(self, stage: Stage) -> Session:
        if self.name == "onnxruntime":
            return OnnxRuntimeSession(self.bundle.path(self.bundle.manifest.graphs[stage].file))
        from storm_edge.runtime.sessions.tensorrt import TensorRTSession

        return TensorRTSession(self._tensorrt(stage))

    def _tensorrt(self, stage: Stage):  # type: ignore[no-untyped-def]
        from storm_edge.export.build.goal import judge
        from storm_edge.export.build.steps import prepare
        from storm_edge.export.build.tensorrt.compile import compile_graph
        from storm_edge.export.build.tensorrt.compile_job import CompileJob
        from storm_edge.runtime.sessions.tensorrt_engine import TensorRTEngine

        goal = judge(self.bundle, target("rtx"), OPTIONS, probe())
        graphs, _ = prepare(self.bundle, goal)
        graph, engine = self.bundle.path(graphs[stage]), self.folder / stage
        job = CompileJob(package=self.name, graph=str(graph), engine=str(engine), profiles=goal.profiles[stage])
        return TensorRTEngine(engine, self.name, compile_graph(job).version, self.device)

    def decoder(self) -> LanguageModel:
        config = self.bundle.config.llm
        embedding = EmbeddingTable.open(self.bundle.path(self.bundle.manifest.embedding))
        if self.name == "onnxruntime":
            graph = self.bundle.path(self.bundle.manifest.graphs["decoder"].file)
            return OnnxRuntimeDecoder(graph, config, embedding, LENGTH)
        from storm_edge.runtime.llm.tensorrt import TensorRTDecoder

        return TensorRTDecoder(self._tensorrt("decoder"), config, embedding)


@pytest.fixture(params=["onnxruntime", "tensorrt", "tensorrt_rtx"])
def kind(request: pytest.FixtureRequest, bundle: Path, copy_of: Callable[[Path], Path], tmp_path: Path) -> Kind:
    if request.param != "onnxruntime":
        for package in (request.param, "cupy"):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
        if not probe().gpus:
            pytest.skip("this machine has no GPU")
    return Kind(request.param, Bundle.open(copy_of(bundle)), tmp_path)


@pytest.fixture
def clip(bundle: Path) -> dict[str, np.ndarray]:
    return load_file(bundle / "reference" / "clip0.safetensors")


def close(kind: Kind, ours: Tensor, expected: np.ndarray) -> bool:
    difference = kind.device.host(ours).astype(np.float32) - expected
    return bool(np.abs(difference).max() <= kind.tolerance * np.abs(expected).max())


def test_a_session_computes_its_graph_for_every_size_of_its_profile(kind: Kind, clip: dict[str, np.ndarray]) -> None:
    session = kind.session("vision")
    for count in (1, 3, 8, 2):
        tokens = session.run(frames=clip["frames"][:count])["tokens"]
        assert close(kind, tokens, clip["tokens"][:count])


def test_a_later_run_leaves_the_results_of_an_earlier_one(kind: Kind, clip: dict[str, np.ndarray]) -> None:
    session = kind.session("vision")
    first = session.run(frames=clip["frames"][:2])["tokens"]
    kept = kind.device.host(first).copy()
    session.run(frames=clip["frames"][2:4])
    np.testing.assert_array_equal(kind.device.host(first), kept)


def test_one_sessions_output_goes_into_the_next(kind: Kind, clip: dict[str, np.ndarray]) -> None:
    tokens = kind.session("vision").run(frames=clip["frames"])["tokens"]
    visual = kind.session("temporal").run(tokens=tokens[None])["visual_tokens"]
    assert close(kind, visual, clip["visual_tokens"])


def test_visual_tokens_join_the_prompt_where_the_decoder_takes_it(kind: Kind, clip: dict[str, np.ndarray]) -> None:
    visual = kind.session("temporal").run(tokens=clip["tokens"][None])["visual_tokens"]
    llm = kind.decoder()
    before, after = (llm.embed(clip[name].tolist()) for name in ("before", "after"))
    prompt = llm.device.concatenate([before, flatten_visual(llm.device, llm.embed, visual, None), after])
    assert type(prompt) is type(before)
    assert close(kind, llm.append(prompt), clip["logits"][0])


def test_inputs_of_a_wrong_shape_are_engine_errors(kind: Kind) -> None:
    with pytest.raises(EngineError):
        kind.session("vision").run(frames=np.zeros((1, 32, 32, 3), np.uint8))


def test_a_decoder_continues_rewinds_and_refuses_what_does_not_fit(kind: Kind, clip: dict[str, np.ndarray]) -> None:
    llm = kind.decoder()
    before, after = (llm.embed(clip[name].tolist()) for name in ("before", "after"))
    visual = llm.device.put(clip["visual_tokens"])
    prompt = llm.device.concatenate([before, flatten_visual(llm.device, llm.embed, visual, None), after])
    for _ in range(2):
        llm.rewind(0)
        llm.append(prompt[:20])  # in two pieces: the second attends to the first
        assert close(kind, llm.append(prompt[20:]), clip["logits"][0])
        assert close(kind, llm.append(llm.embed([int(clip["greedy"][0])])), clip["logits"][1])
        assert llm.position == len(prompt) + 1
    with pytest.raises(UsageError, match="512"):
        llm.append(np.zeros((LENGTH, 128), np.float32))
    assert llm.position == len(prompt) + 1
