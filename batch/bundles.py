"""A bundle from wherever fsspec reads, in the user's cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

import fsspec

from storm_edge.runtime.bundle.manifest import MANIFEST
from storm_edge.runtime.bundle.publish import lock, staging
from storm_edge.runtime.errors import BundleError
from storm_edge.runtime.machine.user_folders import cache_folder


def local_bundle(bundle: str) -> Path:
    """The path of a bundle on this machine: of a URL, a copy in the user's cache, made once for each manifest.

    Raises BundleError where it cannot be fetched.
    """
    if "://" not in bundle:
        return Path(bundle)
    try:
        fs, remote = fsspec.url_to_fs(bundle)
        manifest = fs.cat_file(f"{remote}/{MANIFEST}")
        name = hashlib.sha256(bundle.encode() + b"\0" + manifest).hexdigest()[:16]
        place = cache_folder() / "bundles"
        place.mkdir(parents=True, exist_ok=True)
        with lock(place, ""):
            if not (place / name).exists():
                with staging(place / name) as folder:
                    fs.get(remote + "/", str(folder) + "/", recursive=True)
        return place / name
    except (OSError, ValueError, ImportError) as e:
        words = (str(e) or type(e).__name__).splitlines()[0][:200]
        raise BundleError(f"{bundle} cannot be fetched ({words}): check the address and its storage.") from e
