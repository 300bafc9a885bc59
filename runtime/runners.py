"""What runs a stage is a runner, and this table says everything that differs between runners.

Nothing else decides by a runner's name. A new one is a row here, a module that opens its sessions or its language
model, and one that builds its engines. Functions are named, not imported: a machine has the packages of one or two.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator


@dataclass(frozen=True)
class Runner:
    """One way of running stages.

    `package` is the module it needs, in a version from `oldest` on and before `past`, and `install` how to get it;
    `device` is the memory its tensors live in, and stages of the same memory are opened with the same
    `sessions.device.Device`; `compiles` tells engines of its own from ONNX graphs that it reads, and `for_absent_gpus`
    engines for a compute capability from those for the GPU that the builder times its kernels on.
    session     module:function (bundle, record, stage, device, threads) -> Session; "" where it runs language models
                alone
    piece       module:function (bundle, record, name, device, threads) -> Session, of the temporal encoder's pieces; ""
                where it has none
    generator   module:function (bundle, record, device, threads) -> Generator
    builder     module:function (bundle, goal, progress) -> EngineRecord; "" where this version has none
    language    module that makes a language model's files where it takes no graph (see export/build/language.py);
                "" where the builder makes the decoder's graph beside the others
    """

    words: str
    package: str
    oldest: str
    install: str
    device: Literal["cpu", "cuda"]
    compiles: bool
    for_absent_gpus: bool
    session: str
    generator: str
    builder: str
    past: str = ""
    language: str = ""
    piece: str = ""

    def takes(self, version: str) -> bool:
        """Whether engines are written for a version of the package: "1.2.1" for one."""
        return line_of(self.oldest) <= line_of(version) and (not self.past or line_of(version) < line_of(self.past))


def line_of(version: str) -> tuple[int, int]:
    """ "1.2.1" -> (1, 2), nothing -> (0, 0)."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


RUNNERS: dict[str, Runner] = {
    "onnxruntime-cpu": Runner(
        words="ONNX Runtime",
        package="onnxruntime",
        oldest="1.22",
        install="pip install 'storm-edge[cpu]'",
        device="cpu",
        compiles=False,
        for_absent_gpus=False,
        session="storm_edge.runtime.sessions.onnxruntime:open_session",
        piece="storm_edge.runtime.sessions.onnxruntime:open_piece",
        generator="storm_edge.runtime.llm.onnxruntime:open_generator",
        builder="storm_edge.export.build.onnxruntime.cpu:build_cpu",
    ),
    "onnxruntime-cuda": Runner(
        words="ONNX Runtime CUDA",
        package="onnxruntime",
        oldest="1.22",
        install="pip install 'storm-edge[cuda]'",
        device="cuda",
        compiles=False,
        for_absent_gpus=False,
        session="storm_edge.runtime.sessions.onnxruntime_cuda:open_session",
        piece="storm_edge.runtime.sessions.onnxruntime_cuda:open_piece",
        generator="storm_edge.runtime.llm.onnxruntime_cuda:open_generator",
        builder="storm_edge.export.build.onnxruntime.cuda:build_cuda",
    ),
    "tensorrt": Runner(
        words="TensorRT",
        package="tensorrt",
        oldest="10.3",
        install="JetPack brings it (see docs/jetson.md), elsewhere pip install 'storm-edge[tensorrt]'",
        device="cuda",
        compiles=True,
        for_absent_gpus=False,
        session="storm_edge.runtime.sessions.tensorrt:open_session",
        piece="storm_edge.runtime.sessions.tensorrt:open_piece",
        generator="storm_edge.runtime.llm.tensorrt:open_generator",
        builder="storm_edge.export.build.tensorrt.build:build_tensorrt",
    ),
    "tensorrt-rtx": Runner(
        words="TensorRT for RTX",
        package="tensorrt_rtx",
        oldest="1.7",
        install="pip install 'storm-edge[rtx]'",
        device="cuda",
        compiles=True,
        for_absent_gpus=True,
        session="storm_edge.runtime.sessions.tensorrt:open_session",
        piece="storm_edge.runtime.sessions.tensorrt:open_piece",
        generator="storm_edge.runtime.llm.tensorrt:open_generator",
        builder="storm_edge.export.build.tensorrt.build:build_tensorrt",
    ),
    "tensorrt-llm": Runner(
        words="TensorRT-LLM",
        package="tensorrt_llm",
        oldest="1.2",
        past="1.3",  # whose engines are gone
        install="pip install tensorrt_llm==1.2.1 from NVIDIA's package index in an environment of its own (its PyTorch"
        " and TensorRT are not those of the other engines), with storm-edge beside it",
        device="cpu",  # from where its Executor takes the rows of a prompt
        compiles=True,
        for_absent_gpus=False,
        session="",
        generator="storm_edge.runtime.llm.tensorrt_llm:open_generator",
        builder="",
        language="storm_edge.export.build.tensorrt_llm.build",
    ),
    "vllm": Runner(
        words="vLLM",
        package="vllm",
        oldest="0.33",
        past="0.34",  # other lines name things otherwise
        install="pip install vllm==0.33.0 in an environment of its own, with storm-edge beside it",
        device="cpu",  # from where it takes a prompt's embeddings
        compiles=False,
        for_absent_gpus=False,
        session="",
        generator="storm_edge.runtime.llm.vllm:open_generator",
        builder="",
        language="storm_edge.export.build.vllm.build",
    ),
}


def _known(name: str) -> str:
    if name not in RUNNERS:
        raise ValueError(f"there is no runner {name[:40]!r}")
    return name


RunnerName = Annotated[str, AfterValidator(_known)]


def function(place: str) -> Any:
    """The function that a row of the table names "module:function"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
