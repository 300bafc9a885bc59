from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storm_edge.runtime import load
from storm_edge.runtime.bundle import manifest
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import BundleError


@pytest.fixture
def large(bundle: Path, copy_of: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that this machine has not seen, all of whose files count as large."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(manifest, "SMALL_FILE", 0)
    return copy_of(bundle)


def flip(path: Path, *, keep_time: bool = False) -> None:
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_the_first_load_hashes_everything_and_later_ones_nothing(large: Path) -> None:
    told: list[str] = []
    load(large, progress=told.append)
    assert "graphs/vision.data" in told
    told.clear()
    load(large, progress=told.append)
    assert told == []


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_flipped_byte_in_the_weights_is_found(large: Path, keep_time: bool) -> None:
    load(large)
    flip(large / "graphs" / "vision.data", keep_time=keep_time)
    with pytest.raises(BundleError, match=r"graphs/vision\.data is damaged"):
        load(large)
    load(large, check=False)


def test_a_cache_that_cannot_be_read_or_written_costs_time_only(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(large)
    for file in (tmp_path / "cache").rglob("*.json"):
        file.write_text("[" * 10_000)
    (tmp_path / "file").touch()
    for place in (tmp_path / "cache", tmp_path / "file"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        told: list[str] = []
        Bundle.open(large).check_once(told.append)
        assert "graphs/vision.data" in told
