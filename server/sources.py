"""Where the bytes of a video come from: data: URLs, files under media roots, uploads, and hosts that are allowed.

A source is an open file and the hash of its contents. Nobody who can only name it can make it another video's: names
are not part of what videos are known by.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO
from urllib.parse import unquote, urlsplit

from storm_edge.runtime.bundle.door import open_file
from storm_edge.runtime.bundle.hashes import sha256_of
from storm_edge.runtime.errors import StormError
from storm_edge.server.errors import RequestError
from storm_edge.server.fetching import SECONDS, fetch
from storm_edge.server.files import FileStore, Scratch
from storm_edge.server.settings import Settings


@dataclass
class Source:
    """An open video, or `images` of so many bytes one after the other; close it."""

    file: IO[bytes]
    digest: str
    images: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._state = self._stat()

    def unchanged(self) -> bool:
        """Whether the file is as it was when it was hashed."""
        return self._stat() == self._state

    def close(self) -> None:
        """Close the file; one that has no name is gone then."""
        self.file.close()

    def _stat(self) -> tuple[int, int, int]:
        status = os.fstat(self.file.fileno())
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Sources:
    """Opens what requests name."""

    def __init__(self, settings: Settings, files: FileStore) -> None:
        self._settings, self._files = settings, files
        self._roots = [(root, root.resolve()) for root in settings.media_roots]

    def video(self, url: str, param: str) -> Source:
        """The video that a URL or id names; raises RequestError, which names the field `param`."""
        file = self._open(url, param, time.monotonic() + SECONDS)
        try:
            return Source(file, sha256_of(file))
        except BaseException:
            file.close()
            raise

    def images(self, urls: Sequence[str], param: str) -> Source:
        """A list of images; raises RequestError."""
        joined, sizes, digest = Scratch(self._files), [], hashlib.sha256(b"images")
        deadline = time.monotonic() + SECONDS
        try:
            for url in urls:
                with self._open(url, param, deadline) as file:
                    content = file.read(self._settings.max_body + 1)
                if not content or len(content) > self._settings.max_body:
                    raise RequestError(400, "an image is empty, or larger than any may be.", "invalid_value", param)
                sizes.append(len(content))
                if sum(sizes) > self._settings.max_upload:
                    most = self._settings.max_upload
                    raise RequestError(400, f"the images have over {most} bytes together.", "invalid_value", param)
                joined.write(content)
                digest.update(hashlib.sha256(content).digest())
            joined.flush()
            return Source(joined, digest.hexdigest(), tuple(sizes))
        except BaseException:
            joined.close()
            raise

    def _open(self, url: str, param: str, deadline: float) -> IO[bytes]:
        scheme = url[:8].partition(":")[0].lower()
        if scheme == "data":
            return self._of_data(url, param)
        if scheme == "file":
            return self.of_root(url, param)
        if scheme in ("http", "https"):
            file = Scratch(self._files)
            try:
                fetch(url, self._settings.url_hosts, self._settings.max_upload, file, deadline, param)
            except BaseException:
                file.close()
                raise
            return file
        if url.startswith("file-"):
            return self._files.open(url, param)
        raise RequestError(
            400, "give a data: URL, a file:// URL under a media root, or the id of an uploaded file.", "bad_url", param
        )

    def _of_data(self, url: str, param: str) -> IO[bytes]:
        head, comma, encoded = url.partition(",")
        try:
            if not comma or not head.lower().endswith(";base64"):
                raise ValueError
            content = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as e:
            raise RequestError(
                400, "a data: URL here is `data:video/mp4;base64,` and base64 without spaces.", "bad_url", param
            ) from e
        file = Scratch(self._files)
        try:
            file.write(content)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    def of_root(self, url: str, param: str) -> IO[bytes]:
        """The file that a file:// URL names under a media root; raises RequestError."""
        try:
            parts = urlsplit(url)
            path = unquote(parts.path, errors="surrogateescape")
            if parts.netloc in ("", "localhost") and not parts.query and not parts.fragment:
                for given, resolved in self._roots:
                    for root in {given.absolute(), resolved}:
                        if path.startswith(f"{root}/"):
                            return open_file(resolved, path.removeprefix(f"{root}/"))
        except (StormError, OSError, ValueError):
            pass  # the same answer for all, which does not say what is there
        raise RequestError(
            400,
            "no video of this name is under a media root (--media-root); links are not followed there.",
            "bad_url",
            param,
        )
