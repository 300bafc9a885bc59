"""The ONNX graphs that an engine runs as they are, each checked before a session sees it."""

from __future__ import annotations

from pathlib import Path

from storm_edge.runtime.bundle.contract import Stage, contract, piece_contract
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.graphs import GraphRules, check_graph
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.runners import RUNNERS


def engine_graph(bundle: Bundle, record: EngineRecord, stage: Stage) -> Path:
    """The path of an ONNX graph of an engine, after it was checked against the contract; raises EngineError."""
    if RUNNERS[record.runners[stage]].language:
        words = RUNNERS[record.runners[stage]].words
        raise EngineError(
            f"{record.name} has no graph of {stage}, {words} takes files of its own: choose another stage."
        )
    name = record.graphs[stage]
    if name == bundle.manifest.graphs[stage].file:
        return bundle.graph(stage)
    values = contract(bundle.config, bundle.manifest.dtype, stage)
    rules = GraphRules(*values, _data_of(bundle, record, stage), literal=False)
    return check_graph(bundle.root, name, rules, EngineError)


def engine_piece(bundle: Bundle, record: EngineRecord, name: str) -> Path:
    """The same of a piece of the temporal encoder, which reads the weights of the whole."""
    values = piece_contract(bundle.config, bundle.manifest.dtype, name)
    rules = GraphRules(*values, _data_of(bundle, record, "temporal"), literal=False)
    return check_graph(bundle.root, record.pieces[name], rules, EngineError)


def _data_of(bundle: Bundle, record: EngineRecord, stage: Stage) -> str | None:
    """The name of the file beside a stage's graph that holds its weights."""
    spec, name = bundle.manifest.graphs[stage], record.graphs[stage]
    data = spec.data if name == spec.file else f"{name.removesuffix('.onnx')}.data"
    return data.rpartition("/")[2] if data in (*record.files, spec.data) and data else None
