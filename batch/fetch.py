"""A video where the runtime can read it: local paths as they are, URLs copied for as long as they are needed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from storm_edge.runtime.errors import VideoError


class UnreachableError(VideoError):
    """A video that is not there now, or whose storage does not answer: the next run may find it."""


@contextmanager
def local_copy(location: str) -> Iterator[str]:
    """The path of a video on this machine while the block lasts. Raises UnreachableError."""
    if "://" not in location:
        if not os.path.exists(location):
            raise UnreachableError(f"there is no file {location}: check the path.")
        yield location
        return
    import fsspec

    with tempfile.TemporaryDirectory(prefix="storm-batch-") as folder:
        path = os.path.join(folder, "video")
        try:
            fs, remote = fsspec.url_to_fs(location)
            fs.get_file(remote, path)
        except Exception as e:  # each storage has its own
            words = (str(e) or type(e).__name__).splitlines()[0][:200]
            raise UnreachableError(f"{location} cannot be fetched ({words}): check the address and its storage.") from e
        yield path
