from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storm_edge.server.errors import RequestError
from storm_edge.server.files import FileStore, StoredFile
from storm_edge.server.uploads import receive

KIND = "multipart/form-data; boundary=B"
FILE = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nVIDEO\r\n'
PURPOSE = b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n'
END = b"--B--\r\n"


def upload(store: FileStore, body: bytes, kind: str = KIND, piece: int = 7) -> StoredFile:
    async def stream() -> AsyncIterator[bytes]:
        for at in range(0, len(body), piece):
            yield body[at : at + piece]

    return asyncio.run(receive(kind, stream(), store, 100))


def test_a_form_becomes_a_file_in_any_pieces() -> None:
    for piece in (1, 2, 50, 1000):
        store = FileStore(1000)
        kept = upload(store, PURPOSE + FILE + END, piece=piece)
        assert (kept.name, kept.purpose, kept.size) == ("a.mp4", "vision", 5)
        with store.open(kept.id, "p") as file:
            assert file.read() == b"VIDEO"
        store.close()
        assert not store.folder.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        FILE,  # cut short
        FILE[:-4],
        PURPOSE + END,
        FILE + FILE + END,
        FILE.replace(b"VIDEO", b"") + END,
        FILE + PURPOSE.replace(b"vision", b"x" * 2000) + END,
        FILE + PURPOSE.replace(b"purpose", b"other") + END,
        FILE.replace(b'"file"', b'"other"') + END,
        FILE.replace(b"Content-Disposition", b"X" * 9000) + END,
        FILE.replace(b"form-data", b"x: y\r\n" * 100) + END,
        b"no form at all",
        FILE.replace(b"VIDEO", b"V" * 101) + END,
    ],
    ids=range(13),
)
def test_what_is_no_such_form_is_refused_and_leaves_nothing(body: bytes) -> None:
    store = FileStore(1000)
    with pytest.raises(RequestError) as caught:
        upload(store, body)
    assert caught.value.status in (400, 413)
    assert (list(store.folder.iterdir()), store.listed(), store.taken) == ([], [], 0)
    store.close()


def test_a_store_removes_what_a_killed_server_left_and_nothing_that_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = "from storm_edge.server.files import FileStore; s = FileStore(9); print(s.folder, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as other:
        assert other.stdout is not None
        left = Path(other.stdout.readline().strip())
        (left / "file-1").write_bytes(b"VIDEO")
        other_files, young = tmp_path / "others", tmp_path / "storm-serve-young"
        for folder in (other_files, young):
            folder.mkdir()
        for folder in (left, other_files):
            os.utime(folder, (0, 0))
        first = FileStore(1000)
        os.utime(first.folder, (0, 0))
        assert left.exists()  # its server runs
        other.kill()
    second = FileStore(1000)
    assert {*tmp_path.iterdir()} == {first.folder, second.folder, other_files, young}


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/form-data", "multipart/form-data; boundary="])
def test_only_forms_are_taken(kind: str) -> None:
    with pytest.raises(RequestError) as caught:
        upload(FileStore(1000), FILE + END, kind)
    assert caught.value.status == 415
