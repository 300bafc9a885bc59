from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from storm_edge.runtime import load
from storm_edge.runtime.bundle.engine import built_at, read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.trust import choose_engine, is_ours, sealed
from storm_edge.runtime.errors import EngineError


def test_an_engine_is_known_again_by_who_built_it(bundle: Path) -> None:
    record = read_engine(Bundle.open(bundle), "cpu-fp32")
    assert is_ours(record)
    assert not is_ours(record.model_copy(update={"target": "orin"}))
    assert not is_ours(record.model_copy(update={"seal": ""}))
    assert not is_ours(record.model_copy(update={"seal": "é"}))


def test_another_users_engine_is_run_only_where_it_is_trusted(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # somebody else
    opened = Bundle.open(bundle)
    for name in (None, "cpu-fp32"):
        with pytest.raises(EngineError, match=r"not built by you.*storm build"):
            choose_engine(opened, name, ("cpu",))
        assert choose_engine(opened, name, ("cpu",), trust=True).name == "cpu-fp32"
    with pytest.raises(EngineError, match="trust-engines"):
        load(bundle)
    assert load(bundle, trust_engines=True).engine.name == "cpu-fp32"


def test_a_forged_record_is_not_chosen(bundle: Path, copy_of: Callable[[Path], Path]) -> None:
    path = copy_of(bundle)
    json_file = path / "engines" / "cpu-fp32" / "engine.json"
    data = json.loads(json_file.read_text())
    json_file.write_text(json.dumps(data | {"versions": {"storm-edge": "99"}}))
    with pytest.raises(EngineError, match="not built by you"):
        load(path)


@pytest.mark.parametrize("created", ["9999-01-01T00:00:00+00:00", "tomorrow", "", "2026-01-01T00:00:00"])
def test_a_time_that_cannot_be_is_before_all_others(bundle: Path, created: str) -> None:
    record = read_engine(Bundle.open(bundle), "cpu-fp32")
    assert built_at(sealed(record.model_copy(update={"created": created}))) < built_at(record)


def test_without_a_place_for_the_secret_engines_are_built_and_trusted_by_name(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    record = sealed(read_engine(Bundle.open(bundle), "cpu-fp32"))
    assert record.seal == ""
    assert not is_ours(record)
