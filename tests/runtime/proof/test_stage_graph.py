from __future__ import annotations

from pathlib import Path

import onnx

from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.proof.stage_graph import StageGraph


def test_tensors_are_those_that_nodes_compute_in_their_order(bundle: Path) -> None:
    path = Bundle.open(bundle).graph("temporal")
    model = onnx.load(path, load_external_data=False)
    expected = [(name, node.name, node.op_type) for node in model.graph.node for name in node.output]
    assert [(t.name, t.node, t.op) for t in StageGraph(path).tensors.values()] == expected


def test_other_outputs_change_nothing_else_of_the_file(bundle: Path) -> None:
    path = Bundle.open(bundle).graph("temporal")
    model = onnx.load(path, load_external_data=False)
    scan = next(node for node in model.graph.node if node.op_type == "SelectiveScan").output[0]
    given = onnx.ModelProto.FromString(StageGraph(path).giving([scan, "visual_tokens"]))
    assert [value.name for value in given.graph.output] == [scan, "visual_tokens"]
    assert given.graph.output[1] == model.graph.output[0]
    for changed in (given, model):
        del changed.graph.output[:]
    assert given == model


def test_a_fixed_axis_has_a_size_and_a_dynamic_one_none(bundle: Path) -> None:
    graph = StageGraph(Bundle.open(bundle).graph("temporal"))
    assert (graph.size("tokens", 0), graph.size("tokens", 1)) == (1, None)
