"""Strip metadata: the exporter writes source paths and stack traces, so equal models would have unequal bytes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove metadata, doc strings and producer names, in place; tensors and nodes keep their names."""
    model.producer_name, model.producer_version, model.doc_string = "storm-edge", "", ""
    del model.metadata_props[:]
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        _clear(function.node)
        _clear(function.value_info)
    _strip_graph(model.graph)


def _strip_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for items in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        _clear(items)
    for node in graph.node:
        for subgraph in _subgraphs(node):
            _strip_graph(subgraph)


def _clear(items: object) -> None:
    for item in items:  # type: ignore[attr-defined]  # protobuf's containers have no common static type
        item.doc_string = ""
        del item.metadata_props[:]


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
