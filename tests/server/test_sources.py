from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import IO

import pytest

from storm_edge.server.errors import RequestError
from storm_edge.server.files import FileStore
from storm_edge.server.settings import Settings
from storm_edge.server.sources import Sources

SECRET = b"a secret"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A media root with a video in it, and beside it what must not be reached."""
    (tmp_path / "root" / "inner").mkdir(parents=True)
    (tmp_path / "root" / "inner" / "a b.mp4").write_bytes(b"video")
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "root-of-others").mkdir()
    (tmp_path / "root-of-others" / "x.mp4").write_bytes(SECRET)
    return tmp_path


@pytest.fixture
def sources(place: Path) -> Sources:
    return Sources(Settings(media_roots=(place / "root",)), FileStore(1 << 20))


def test_a_file_under_a_media_root_is_opened_by_its_url(sources: Sources, place: Path) -> None:
    url = (place / "root" / "inner" / "a b.mp4").as_uri()
    for spelling in (url, url.replace("file://", "file://localhost")):
        source = sources.video(spelling, "p")
        assert source.file.read() in (b"video", b"")  # hashed to its end
        assert source.unchanged()
        source.close()


@pytest.mark.parametrize(
    "path",
    [
        "root/../secret",
        "root/inner/../../secret",
        "root/%2e%2e/secret",
        "root//secret",
        "root-of-others/x.mp4",
        "secret",
        "root/link",
        "root/folder-link/secret",
        "root/fifo",
        "root/inner",
        "root/none",
        "root/",
        "root",
        "root/inner/a%00b.mp4",
        "root/inner/a b.mp4?x=1",
        "root/inner/a b.mp4#x",
        "root/%ff%fe",
    ],
)
def test_nothing_else_is_and_all_are_refused_alike(sources: Sources, place: Path, path: str) -> None:
    (place / "root" / "link").symlink_to(place / "secret")
    (place / "root" / "folder-link").symlink_to(place, target_is_directory=True)
    os.mkfifo(place / "root" / "fifo")
    with pytest.raises(RequestError) as caught:
        sources.video(f"file://{place}/{path}", "p")
    assert (caught.value.status, caught.value.code) == (400, "bad_url")
    assert str(place) not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/etc/passwd",
        "etc/passwd",
        "file:///etc/passwd",
        "file://host/etc/passwd",
        "file:etc/passwd",
        "ftp://host/a.mp4",
        "concat:a|b",
        "data:video/mp4,abc",
        "data:video/mp4;base64",
        "data:video/mp4;base64,a b=",
        "data:video/mp4;base64,ä",
        "file-../../etc/passwd",
    ],
)
def test_what_is_no_source_is_refused(sources: Sources, url: str) -> None:
    with pytest.raises(RequestError) as caught:
        sources.video(url, "p")
    assert caught.value.status in (400, 404)


def test_without_a_media_root_no_file_is_opened(place: Path) -> None:
    with pytest.raises(RequestError):
        Sources(Settings(), FileStore(1)).video((place / "root" / "inner" / "a b.mp4").as_uri(), "p")


def test_what_is_hashed_is_what_is_read(sources: Sources, place: Path) -> None:
    path = place / "root" / "v.mp4"
    path.write_bytes(b"one")
    source = sources.video(path.as_uri(), "p")
    path.write_bytes(b"two")
    assert not source.unchanged()
    source.close()
    replaced = sources.video(path.as_uri(), "p")
    assert replaced.digest != source.digest
    path.unlink()
    path.write_bytes(b"six")  # another file of this name: the open one stays what it was
    assert os.pread(replaced.file.fileno(), 9, 0) == b"two"
    replaced.close()


def test_a_data_url_leaves_no_file(sources: Sources) -> None:
    source = sources.video(f"data:;base64,{base64.b64encode(b'bytes').decode()}", "p")
    assert os.pread(source.file.fileno(), 9, 0) == b"bytes"
    assert list(sources._files.folder.iterdir()) == []
    source.close()


def test_lists_of_images_differ_where_their_bounds_do(sources: Sources) -> None:
    def digest(*images: bytes) -> str:
        urls = [f"data:;base64,{base64.b64encode(image).decode()}" for image in images]
        source = sources.images(urls, "p")
        source.close()
        return source.digest

    assert digest(b"ab", b"c") != digest(b"a", b"bc")
    assert digest(b"ab", b"c") == digest(b"ab", b"c")
    with pytest.raises(RequestError, match="empty"):
        digest(b"a", b"")


def test_what_is_asked_about_takes_room_of_the_uploads_until_it_is_closed() -> None:
    store = FileStore(10)
    sources = Sources(Settings(), store)
    six = "data:video/mp4;base64," + base64.b64encode(b"6" * 6).decode()
    first = sources.video(six, "p")
    assert store.taken == 6
    for refuse in (lambda: sources.video(six, "p"), lambda: sources.images([six], "p")):
        with pytest.raises(RequestError) as caught:
            refuse()
        assert caught.value.code == "storage_full"
    assert store.taken == 6
    first.close()
    first.close()
    assert store.taken == 0
    store.close()


def test_all_that_a_question_fetches_has_one_deadline(monkeypatch: pytest.MonkeyPatch, sources: Sources) -> None:
    given: list[float] = []

    def fetching(url: str, hosts: object, most: int, into: IO[bytes], deadline: float, param: str) -> None:
        given.append(deadline)
        into.write(b"x")
        into.seek(0)

    monkeypatch.setattr("storm_edge.server.sources.fetch", fetching)
    sources.images(["http://a.org/1", "http://a.org/2", "http://a.org/3"], "p").close()
    assert len(given) == 3
    assert len(set(given)) == 1
