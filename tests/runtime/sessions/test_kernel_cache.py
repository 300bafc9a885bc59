from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from storm_edge.runtime.sessions.kernel_cache import context_config, kernels_path

STRATEGY = SimpleNamespace(USER_MANAGED="user managed")


class Config:
    """IRuntimeConfig; `blobs` are what its cache was given, `takes` whether it takes a cache."""

    def __init__(self, takes: bool = True, made: bytes | None = b"kernels", has: bool = True) -> None:
        self.blobs: list[bytes] = []
        self.strategy = ""
        self._takes, self._made, self._has = takes, made, has

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> object:
        return SimpleNamespace(deserialize=self.blobs.append, serialize=lambda: self._made) if self._has else None

    def set_runtime_cache(self, cache: object) -> bool:
        return self._takes


class Owner:
    """What holds the engine."""


def opened(engine: Path, config: Config) -> None:
    """Make a context's configuration, and drop the engine."""
    owner = Owner()
    rtx = SimpleNamespace(ExecutionContextAllocationStrategy=STRATEGY, IRuntimeCache=object)
    assert context_config(rtx, SimpleNamespace(create_runtime_config=lambda: config), engine, owner) is config
    assert config.strategy == "user managed"


def test_kernels_of_one_run_are_there_in_the_next(tmp_path: Path) -> None:
    first, second = Config(), Config()
    opened(tmp_path / "a.engine", first)
    opened(tmp_path / "a.engine", second)
    assert (first.blobs, second.blobs) == ([], [b"kernels"])
    assert kernels_path(tmp_path / "a.engine").stat().st_mode & 0o077 == 0
    other = Config()
    opened(tmp_path / "b.engine", other)
    assert other.blobs == []


@pytest.mark.parametrize("config", [Config(takes=False), Config(made=None), Config(has=False)])
def test_where_there_is_no_cache_the_engine_runs_and_nothing_is_kept(config: Config, tmp_path: Path) -> None:
    opened(tmp_path / "c.engine", config)
    assert not kernels_path(tmp_path / "c.engine").exists()


def test_tensorrts_own_engines_have_their_kernels_and_need_no_cache(tmp_path: Path) -> None:
    trt = SimpleNamespace(ExecutionContextAllocationStrategy=STRATEGY)
    assert context_config(trt, None, tmp_path / "a.engine", Owner()) == "user managed"
