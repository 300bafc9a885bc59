"""Prepared graphs that no engine needs any more: of a 7B model they are gigabytes each."""

from __future__ import annotations

import re

from storm_edge.runtime.bundle.engine import engine_names, read_engine
from storm_edge.runtime.bundle.manifest import STAGES, Bundle
from storm_edge.runtime.errors import EngineError

_PREPARED = re.compile(rf".+\.[0-9a-f]{{12}}\.({'|'.join(STAGES)})\.(onnx|data|partial)")  # see prepared.py


def drop_unused_graphs(bundle: Bundle) -> None:
    """Delete the prepared graphs that no engine names; the caller holds the lock of the engines.

    Where the record of an engine cannot be read, everything stays.
    """
    try:
        used = {file for name in engine_names(bundle) for file in read_engine(bundle, name).files}
    except EngineError:
        return
    for path in bundle.path("graphs").iterdir():
        if _PREPARED.fullmatch(path.name) and f"graphs/{path.name}" not in used:
            path.unlink(missing_ok=True)
