"""Prepared graphs that no engine needs any more: of a 7B model they are gigabytes each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from storm_edge.runtime.bundle.door import open_folder
from storm_edge.runtime.bundle.engine import PREPARED, engine_names, read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.publish import remove_files
from storm_edge.runtime.errors import StormError


def drop_unused_graphs(bundle: Bundle) -> None:
    """Delete the prepared graphs that no engine names; the caller holds the lock of the engines.

    Where the record of an engine cannot be read, everything stays.
    """
    _drop_graphs_except(bundle, set())


@contextmanager
def removed_on_failure(bundle: Bundle) -> Iterator[None]:
    """Delete the graphs that were prepared in the block where it fails, unless an engine was published of them.

    The caller holds the lock of the engines.
    """
    with open_folder(bundle.root, "graphs") as at:
        before = set(os.listdir(at))
    try:
        yield
    except BaseException:
        _drop_graphs_except(bundle, before)
        raise


def _drop_graphs_except(bundle: Bundle, kept: set[str]) -> None:
    try:
        used = {file for name in engine_names(bundle) for file in read_engine(bundle, name).files}
    except StormError:
        return
    kept = kept | {file.removeprefix("graphs/") for file in used}
    remove_files(bundle.root, "graphs", lambda name: bool(PREPARED.fullmatch(name)) and name not in kept)
