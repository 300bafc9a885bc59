"""What lies in a bundle that no record lists: nothing opens it, and whoever takes the bundle should know of it."""

from __future__ import annotations

import re

from storm_edge.runtime.bundle.calibration import FOLDER, calibration_names
from storm_edge.runtime.bundle.door import entries
from storm_edge.runtime.bundle.engine import ENGINE_JSON, engine_names, read_engine
from storm_edge.runtime.bundle.manifest import MANIFEST, Bundle
from storm_edge.runtime.errors import StormError

# What a calibration writes for people to read, beside what builds read.
_OF_CALIBRATION = ("ranges.safetensors", "layers.json", "report.json", "sensitivity.json", "sensitivity.png")
_UNFINISHED = re.compile(r"\..+\.partial-\d+-[0-9a-f]{16}")


def unlisted_files(bundle: Bundle) -> list[str]:
    """The files that neither the manifest nor an engine nor a calibration lists, sorted; raises BundleError, OSError.

    Folders that another process is writing are left out.
    """
    known = {MANIFEST, *bundle.manifest.files}
    for name in engine_names(bundle):
        known.add(f"engines/{name}/{ENGINE_JSON}")
        try:
            known |= set(read_engine(bundle, name).files)
        except StormError:  # its files stay unknown
            continue
    known |= {f"{FOLDER}/{name}/{file}" for name in calibration_names(bundle) for file in _OF_CALIBRATION}
    return [
        entry.name
        for entry in entries(bundle.root)
        if not entry.is_folder
        and entry.name not in known
        and not any(map(_UNFINISHED.fullmatch, entry.name.split("/")))
    ]
