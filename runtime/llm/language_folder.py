"""The folder of a language model that a library opens by itself: that it is the one its engine's record lists."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from storm_edge.runtime.bundle.door import open_folder
from storm_edge.runtime.bundle.engine import ENGINE_JSON, EngineRecord, build_again
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.probe import probe


def language_folder(bundle: Bundle, record: EngineRecord) -> Path:
    """The folder. Raises EngineError where it is for more GPUs than are here, or holds a file that the record does not
    list, or lacks one; BundleError for a link.
    """
    again = f"build it again here with `{build_again(bundle, record)}`"
    if record.tp > (here := len(probe().gpus)):
        raise EngineError(f"engine {record.name} is shared by {record.tp} GPUs, this machine has {here}: {again}.")
    folder = PurePosixPath(record.graphs["decoder"]).parent
    # A build runs an engine before its folder has its name, which is the second part.
    files = [path for f in record.files if (path := PurePosixPath(f)).parts[0] == "engines"]
    listed = {path.name for path in files if path.parts[2:-1] == folder.parts[2:]}
    with open_folder(bundle.root, str(folder)) as at:
        found = set(os.listdir(at)) - {ENGINE_JSON}
    if found != listed:
        raise EngineError(f"{bundle.root / folder} holds {sorted(found ^ listed)[0]!r} against its record: {again}.")
    for name in sorted(listed):
        bundle.located(f"{folder}/{name}")
    return bundle.root / folder
