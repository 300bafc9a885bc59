from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from storm_edge.runtime.bundle.door import MAX_ENTRIES, entries, folders_in, is_file, open_file, read_text, user_file
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import BundleError, CheckpointError

KINDS = ("link", "dangling", "fifo", "socket", "device")


def place(path: Path, kind: str, secret: Path) -> None:
    """Put something that is no regular file at `path`."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # paths of sockets are short
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(here)
    else:
        path.symlink_to({"link": secret, "dangling": path.parent / "nothing", "device": Path("/dev/zero")}[kind])


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("mine")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_neither_opened_nor_waited_for(tmp_path: Path, secret: Path, kind: str) -> None:
    (tmp_path / "bundle" / "graphs").mkdir(parents=True)
    place(tmp_path / "bundle" / "graphs" / "f", kind, secret)
    with pytest.raises(BundleError, match=r"graphs/f is (a symbolic link|no regular file)"):
        open_file(tmp_path / "bundle", "graphs/f")
    with pytest.raises(BundleError):
        entries(tmp_path / "bundle")


def test_a_folder_that_is_a_link_leads_nowhere(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "graphs").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="symbolic link"):
        open_file(tmp_path / "bundle", "graphs/secret")
    with pytest.raises(BundleError, match="symbolic link"):
        folders_in(tmp_path / "bundle", "graphs")


NAMES = ["../secret", "/etc/passwd", "a/../../secret", "a\\b", "", ".", "a\0b", "a\nb", "\x1b[2J"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_out_or_are_no_names_are_refused(tmp_path: Path, secret: Path, name: str) -> None:
    with pytest.raises(BundleError, match="leads out of the bundle"):
        open_file(tmp_path, name)


def test_the_bundle_itself_may_be_a_link_and_its_files_hard_links(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "real").mkdir()
    os.link(secret, tmp_path / "real" / "f")
    (tmp_path / "bundle").symlink_to("real")
    assert read_text(tmp_path / "bundle", "f") == "mine"
    assert is_file(tmp_path / "bundle", "f")
    assert not is_file(tmp_path / "bundle", "g")
    assert [e.name for e in entries(tmp_path / "bundle")] == ["f"]


def test_a_record_of_absurd_size_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match="over 64 MiB"):
        read_text(tmp_path, "f")


def test_a_bundle_has_a_number_of_files_that_can_be_looked_at(tmp_path: Path) -> None:
    for i in range(MAX_ENTRIES + 1):
        (tmp_path / str(i)).touch()
    with pytest.raises(BundleError, match="holds over 10000 files"):
        entries(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["extra", "graphs/vision.data", "tokenizer/chat_template.jinja"])
def test_a_bundle_with_anything_but_files_is_not_opened(
    bundle: Path, copy_of: Callable[[Path], Path], secret: Path, kind: str, name: str
) -> None:
    path = copy_of(bundle) / name
    path.unlink(missing_ok=True)
    place(path, kind, secret)
    with pytest.raises(BundleError, match=r"is (a symbolic link|no regular file)"):
        Bundle.open(path.parents[len(Path(name).parts) - 1])


def test_what_the_user_names_may_be_a_link_to_a_file_and_nothing_else(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "link").symlink_to(secret)
    assert user_file(tmp_path / "link", CheckpointError, "restore it.").read_text() == "mine"
    for kind in KINDS[1:]:
        place(tmp_path / kind, kind, secret)
        with pytest.raises(CheckpointError, match=r"(is missing|is no regular file): restore it\.$"):
            user_file(tmp_path / kind, CheckpointError, "restore it.")
