from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storm_edge.export.build.goal import judge
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import prepare
from storm_edge.runtime.bundle.manifest import STAGES, Bundle
from storm_edge.runtime.machine.packages import import_polygraphy
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.proof.layer_runners import onnxruntime_runner, tensorrt_network, tensorrt_runner
from storm_edge.runtime.proof.stage_graph import StageGraph
from storm_edge.runtime.runners import RUNNERS

pytest.importorskip("polygraphy", reason="Polygraphy is not installed: run `make setup`")


def test_onnxruntime_gives_out_what_is_asked_for_with_the_weights_beside_the_file(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    graph = StageGraph(opened.graph("vision"))
    given = [t.name for t in graph.tensors.values() if t.op == "LayerNormalization"]
    side = opened.config.vision.image_size
    with onnxruntime_runner("vision", graph, given, 1, literal=False, cuda=False) as runner:
        outputs = runner.infer({"frames": np.zeros((1, side, side, 3), np.uint8)})
    assert list(outputs) == given


def test_the_network_of_every_prepared_graph_gives_out_its_layers(
    bundle: Path, copy_of: Callable[[Path], Path]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install .[rtx]")
    opened = Bundle.open(copy_of(bundle))
    goal = judge(opened, target("rtx"), BuildOptions("fp16", "bf16", max_length=512, max_frames=16), probe())
    graphs, _ = prepare(opened, goal)
    row, logger = RUNNERS["tensorrt-rtx"], import_polygraphy("logger").G_LOGGER
    for stage in STAGES:
        graph = StageGraph(opened.path(graphs[stage]))
        given = [t.name for t in graph.tensors.values() if t.is_layers]
        with logger.verbosity(logger.CRITICAL + 1):
            _, network, _ = tensorrt_network(graph, given, row)
        assert [network.get_output(i).name for i in range(network.num_outputs)] == given
        assert tensorrt_runner("engine", graph, given, row, goal.profiles[stage][-1]).name == "engine"
