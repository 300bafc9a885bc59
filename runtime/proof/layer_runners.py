"""Polygraphy's runners over a stage's graph that gives out what lies between its layers.

ONNX Runtime reads the graph with other outputs. TensorRT's engines keep nothing of what lies between, so the graph that
an engine was compiled of is compiled again, with the same profiles; that was written from the documentation, and as far
as the network it was tried without a GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from typing import Any

from storm_edge.plugins.libraries import TENSORRT, find_library
from storm_edge.runtime.bundle.engine import ProfileShapes
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.packages import import_polygraphy
from storm_edge.runtime.machine.tensorrt_plugin import load_plugin
from storm_edge.runtime.proof.stage_graph import StageGraph
from storm_edge.runtime.runners import Runner
from storm_edge.runtime.sessions.onnxruntime import create_session


def onnxruntime_runner(
    name: str, graph: StageGraph, given: Collection[str], threads: int | None, *, literal: bool, cuda: bool
) -> Any:
    """A runner of ONNX Runtime that gives out the tensors `given`."""

    def session() -> Any:
        return create_session(
            graph.path, threads, literal=literal, cuda={} if cuda else None, content=graph.giving(given)
        )

    return import_polygraphy("backend.onnxrt").OnnxrtRunner(session, name=name)


def tensorrt_runner(
    name: str, graph: StageGraph, given: Collection[str], runner: Runner, profiles: Mapping[str, ProfileShapes]
) -> Any:
    """A runner of TensorRT, or of TensorRT for RTX, that compiles the graph with `given` as outputs when activated."""
    trt = import_polygraphy("backend.trt", rtx=runner.for_absent_gpus)
    shapes = trt.Profile()
    for tensor, sizes in profiles.items():
        shapes.add(tensor, sizes.min, sizes.opt, sizes.max)
    configure = trt.CreateConfig
    if runner.for_absent_gpus:
        configure = import_polygraphy("backend.tensorrt_rtx", rtx=True).CreateConfigRTX
    engine = trt.EngineFromNetwork(lambda: tensorrt_network(graph, given, runner), configure(profiles=[shapes]))
    return trt.TrtRunner(engine, name=name)


def tensorrt_network(graph: StageGraph, given: Collection[str], runner: Runner) -> tuple[Any, Any, Any]:
    """Polygraphy's builder, network and parser of a graph whose outputs are those of `given` that the network has.

    The parser leaves out what folds into constants. Raises EngineError where none is left.
    """
    trt = import_polygraphy("backend.trt", rtx=runner.for_absent_gpus)
    library = find_library(TENSORRT)
    api = importlib.import_module(runner.package)
    if library is not None:
        load_plugin(api, runner.package, library)
    builder, network, parser = trt.network_from_onnx_path(str(graph.path), strongly_typed=True)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    there = {layer.get_output(i).name for layer in layers for i in range(layer.num_outputs)}
    kept = [tensor for tensor in given if tensor in there]
    if not kept:
        raise EngineError(f"TensorRT's network of {graph.path} has none of the layers to compare: try --mark all.")
    trt.modify_network_outputs((builder, network, parser), outputs=kept)
    return builder, network, parser
