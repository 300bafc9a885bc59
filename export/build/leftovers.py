"""Prepared graphs that no engine needs any more: of a 7B model they are gigabytes each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from storm_edge.runtime.bundle.door import open_folder
from storm_edge.runtime.bundle.engine import PREPARED, engine_names, read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.publish import remove_files
from storm_edge.runtime.errors import StormError


def drop_unused_graphs(bundle: Bundle) -> None:
    """Delete the prepared graphs that no engine names; the caller holds the lock of the engines.

    Where the record of an engine cannot be read, everything stays.
    """
    with suppress(StormError):
        used = _used(bundle)
        remove_files(bundle.root, "graphs", lambda name: bool(PREPARED.fullmatch(name)) and name not in used)


@contextmanager
def removed_on_failure(bundle: Bundle) -> Iterator[None]:
    """Delete what was prepared in the block and no engine names, where it fails; the caller holds the engines' lock."""
    with open_folder(bundle.root, "graphs") as at:
        kept = set(os.listdir(at))
    try:
        yield
    except BaseException:
        with suppress(StormError):
            kept |= _used(bundle)
        remove_files(bundle.root, "graphs", lambda name: bool(PREPARED.fullmatch(name)) and name not in kept)
        raise


def _used(bundle: Bundle) -> set[str]:
    """The names in graphs/ that engines list; raises StormError where one cannot be read."""
    files = (file for name in engine_names(bundle) for file in read_engine(bundle, name).files)
    return {file.removeprefix("graphs/") for file in files}
