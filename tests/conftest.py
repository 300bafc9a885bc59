"""A checkpoint and its bundle, made once for all tests that only read them."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.initialize import initialize
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.machine.targets import target

DEMO = Path(__file__).parents[1] / "demo" / "checkpoint"


@pytest.fixture(autouse=True)
def scheduling() -> Iterator[None]:
    """The AV1 encoder makes root's process a real-time one, and so the servers that later tests start: undone here."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    if os.sched_getscheduler(0) != before[0]:
        os.sched_setscheduler(0, *before)


@pytest.fixture(scope="session", autouse=True)
def user_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Cache and secret of a user of the tests' own: they neither read nor write the real one's."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        yield folder


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
    build(Bundle.open(path), target("cpu"), BuildOptions())
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed demo checkpoint as a bundle with an engine, recorded on synthetic frames; do not change it."""
    path = tmp_path_factory.mktemp("trained") / "bundle"
    export_bundle(DEMO, path)
    build(Bundle.open(path), target("cpu"), BuildOptions())
    return path


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a folder to where a test may damage it."""

    def copy(path: Path) -> Path:
        return Path(shutil.copytree(path, tmp_path / path.name))

    return copy


def moving_clips(number: int = 8, frames: int = 8, size: int = 64) -> Iterator[NDArray[np.uint8]]:
    """Clips uint8 [frames, size, size, 3] in which coloured blocks and coarse noise move."""
    for seed in range(number):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(size // 8, axis=0).repeat(size // 8, axis=1)
        clip = np.stack([np.roll(coarse, (3 * t, 5 * t), axis=(0, 1)) for t in range(frames)])
        if seed % 2:
            clip = clip // 8
            for t in range(frames):
                clip[t, 8 : 8 + 12, 4 * t : 4 * t + 12] = rng.integers(0, 256, 3)
        if seed % 4 == 2:
            clip = rng.integers(0, 256, clip.shape, dtype=np.uint8)
        yield clip


@pytest.fixture(scope="session")
def calibrated(bundle: Path) -> Path:
    """A copy of the bundle with a calibration called "clips", of which every layer is quantized; do not change it."""
    from storm_edge.calibration.calibrate import calibrate

    path = bundle.parent / "calibrated" / "bundle"
    shutil.copytree(bundle, path)
    calibrate(Bundle.open(path), moving_clips, "clips", samples=8, budget=math.inf)
    return path
