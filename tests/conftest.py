"""A checkpoint and its bundle, made once for all tests that only read them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from storm_edge.export.build.cpu import build_cpu
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.initialize import initialize
from storm_edge.runtime.bundle import Bundle
from storm_edge.runtime.config import StormConfig
from storm_edge.runtime.presets import preset


@pytest.fixture(scope="session")
def config() -> StormConfig:
    return preset("storm-mini")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, config: StormConfig) -> Path:
    """A random storm-mini checkpoint; do not change it."""
    path = tmp_path_factory.mktemp("storm") / "checkpoint"
    initialize(config, path)
    return path


@pytest.fixture(scope="session")
def bundle(checkpoint: Path) -> Path:
    """Its bundle with a verified engine cpu-fp32; do not change it."""
    path = checkpoint.parent / "bundle"
    export_bundle(checkpoint, path)
    build_cpu(Bundle.open(path))
    return path


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a folder to where a test may damage it."""

    def copy(path: Path) -> Path:
        return Path(shutil.copytree(path, tmp_path / path.name))

    return copy
