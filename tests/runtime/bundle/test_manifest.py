from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storm_edge.runtime.bundle.manifest import MANIFEST, SCHEMA_VERSION, Bundle
from storm_edge.runtime.errors import BundleError, EngineError

Copy = Callable[[Path], Path]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x20
    path.write_bytes(data)


def test_a_missing_folder_and_a_folder_that_is_no_bundle_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist: `storm export"):
        Bundle.open(tmp_path / "none")
    with pytest.raises(BundleError, match="is no bundle, it has no manifest"):
        Bundle.open(tmp_path)


def test_a_newer_schema_asks_for_an_update(bundle: Path, copy_of: Copy) -> None:
    copy = copy_of(bundle)
    edit(copy / MANIFEST, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(BundleError, match=r"schema version \d+, this storm-edge reads \d+: update storm-edge"):
        Bundle.open(copy)


@pytest.mark.parametrize("text", ["", "{", "[1]", "nul", '{"schema_version": 2}', "[" * 100_000])
def test_a_damaged_manifest_is_one_line(text: str, bundle: Path, copy_of: Copy) -> None:
    copy = copy_of(bundle)
    (copy / MANIFEST).write_text(text)
    with pytest.raises(BundleError) as e:
        Bundle.open(copy)
    assert "\n" not in str(e.value)


def test_a_flipped_byte_in_a_small_file_is_found_on_opening(bundle: Path, copy_of: Copy) -> None:
    copy = copy_of(bundle)
    flip_byte(copy / "graphs" / "vision.onnx")
    with pytest.raises(BundleError, match=r"vision\.onnx is damaged"):
        Bundle.open(copy)


def test_a_flipped_byte_in_a_large_file_is_found_by_hashing_everything(bundle: Path, copy_of: Copy) -> None:
    copy = copy_of(bundle)
    flip_byte(copy / "graphs" / "vision.data")
    opened = Bundle.open(copy)
    with pytest.raises(BundleError, match=r"vision\.data is damaged"):
        opened.check_hashes()


def test_a_missing_and_a_shortened_file_are_named(bundle: Path, copy_of: Copy) -> None:
    copy = copy_of(bundle)
    data = copy / "graphs" / "decoder.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"decoder\.data has \d+ bytes instead of \d+"):
        Bundle.open(copy)
    data.unlink()
    with pytest.raises(BundleError, match=r"decoder\.data is missing"):
        Bundle.open(copy)


def test_links_and_paths_that_lead_out_of_the_bundle_are_refused(bundle: Path, copy_of: Copy) -> None:
    copy = copy_of(bundle)
    opened = Bundle.open(copy)
    for name in ("../x", "/etc/passwd", "graphs/../../x", "a\\..\\b"):
        with pytest.raises(BundleError, match="leads out of the bundle"):
            opened.path(name)
    moved = copy.parent / "moved.data"
    (copy / "graphs" / "vision.data").rename(moved)
    (copy / "graphs" / "vision.data").symlink_to(moved)
    with pytest.raises(BundleError, match="symbolic link"):
        Bundle.open(copy)


def test_unknown_manifest_fields_and_configurations_are_refused(bundle: Path, copy_of: Copy) -> None:
    copy = copy_of(bundle)
    edit(copy / MANIFEST, surprise=1)
    with pytest.raises(BundleError, match="surprise"):
        Bundle.open(copy)


def test_damaged_engine_records_are_engine_errors(bundle: Path, copy_of: Copy) -> None:
    from storm_edge.runtime.bundle.engine import read_engine

    copy = copy_of(bundle)
    path = copy / "engines" / "cpu-fp32" / "engine.json"
    text = path.read_text()
    for damage in (text[: len(text) // 2], "[]", text.replace('"built"', '"cooked"')):
        path.write_text(damage)
        with pytest.raises(EngineError, match=r"storm build|make the engine again"):
            read_engine(Bundle.open(copy), "cpu-fp32")
