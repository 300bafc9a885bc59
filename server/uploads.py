"""A multipart form with one file, written to the disk as it comes. Nothing of it is kept in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from storm_edge.server.errors import RequestError
from storm_edge.server.files import FileStore, StoredFile

MOST_FIELD = 1024  # bytes of a field that is no file
PURPOSES = ("user_data", "vision", "assistants")


class _Form:
    """What a parser calls back: the file's bytes go to `write`, and of the fields only `purpose` is known."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._header, self._value = b"", b""
        self._name, self._is_file = "", False
        self.filename: str | None = None
        self.purpose = b""

    def on_part_begin(self) -> None:
        self._name, self._is_file = "", False

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode(errors="replace")
            self._is_file = b"filename" in options
            if self._name == "file" and self._is_file:
                if self.filename is not None:
                    raise RequestError(400, "the form has several files: upload one at a time.", "invalid_form", "file")
                name = options[b"filename"].decode(errors="replace").replace("\\", "/")
                self.filename = name.rpartition("/")[2][:256] or "video"
        self._header, self._value = b"", b""

    def on_headers_finished(self) -> None:
        if (self._name, self._is_file) not in (("file", True), ("purpose", False)):
            raise RequestError(
                400,
                f"the form's field {self._name[:40]!r} is not known here: send `file` and `purpose`.",
                "unsupported_parameter",
                self._name[:40],
            )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._write(data[start:end])
        else:
            self.purpose += data[start:end]
            if len(self.purpose) > MOST_FIELD:
                raise RequestError(400, "the form's `purpose` is too long.", "invalid_form", "purpose")


class _Target:
    """The file being written, with room taken in the store as it grows."""

    def __init__(self, store: FileStore, most: int) -> None:
        self._store, self._most = store, most
        self.id, self._file = store.begin()
        self.size = 0

    def write(self, data: bytes) -> None:
        if self.size + len(data) > self._most:
            raise RequestError(413, f"the file is larger than {self._most} bytes (--max-upload).", "file_too_large")
        self._store.reserve(len(data))
        self.size += len(data)
        self._file.write(data)

    def close(self) -> None:
        self._file.close()


async def receive(content_type: str, stream: AsyncIterator[bytes], store: FileStore, most: int) -> StoredFile:
    """Take an upload of at most `most` bytes; raises RequestError."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise RequestError(415, "send the file as multipart/form-data.", "unsupported_media_type")
    target = _Target(store, most)
    kept = False
    try:
        form = _Form(target.write)
        ended: list[bool] = []
        names = [name for name in dir(form) if name.startswith("on_")]
        callbacks: Any = {name: getattr(form, name) for name in names} | {"on_end": lambda: ended.append(True)}
        parser = MultipartParser(options[b"boundary"], callbacks)
        async for chunk in stream:
            await run_in_threadpool(parser.write, chunk)
        parser.finalize()
        purpose = form.purpose.decode(errors="replace") or PURPOSES[0]
        if not ended or form.filename is None or not target.size:
            raise RequestError(400, "the upload is cut short, or has no `file` in it.", "invalid_form", "file")
        if purpose not in PURPOSES:
            raise RequestError(400, f"purpose must be one of {', '.join(PURPOSES)}.", "invalid_value", "purpose")
        target.close()
        kept = True
        return store.keep(target.id, form.filename, purpose, target.size)
    except FormParserError as e:
        raise RequestError(400, "the form is damaged: send multipart/form-data.", "invalid_form") from e
    finally:
        target.close()
        if not kept:
            store.release(target.id, target.size)
