from __future__ import annotations

import os
from pathlib import Path

import pytest

from storm_edge.export.build.tensorrt.compile_job import CompileJob
from storm_edge.export.build.tensorrt.configure import configure, keep_timing_cache, use_timing_cache
from storm_edge.runtime.bundle.engine import ProfileShapes

ONE = {"x": ProfileShapes(min=[1, 4], opt=[1, 4], max=[1, 4])}
MANY = {"x": ProfileShapes(min=[1, 4], opt=[512, 4], max=[2048, 4])}


def job(**changes: object) -> CompileJob:
    fields = {"package": "fake_tensorrt", "graph": "g.onnx", "engine": "g.engine", "profiles": [ONE, MANY]}
    return CompileJob.model_validate(fields | changes)


def configured(trt, changes):  # type: ignore[no-untyped-def]
    builder = trt.Builder(None)
    return configure(trt, builder, builder.create_network(0), job(**changes))


def test_an_engine_has_its_profiles_in_the_order_of_the_job(fake) -> None:  # type: ignore[no-untyped-def]
    config = configured(fake(), {})
    assert [p.shapes["x"][2] for p in config.profiles] == [[1, 4], [2048, 4]]
    assert config.profiling_verbosity == "DETAILED"  # else the inspector knows no types of layers


def test_a_profile_that_is_missing_or_refused_is_named(fake) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"input x .* has no optimization profile 1"):
        configured(fake(), {"profiles": [ONE, {}]})
    with pytest.raises(ValueError, match=r"input x .* has no optimization profile$"):
        configured(fake(), {"profiles": []})
    empty = {"x": ProfileShapes(min=[0, 4], opt=[1, 4], max=[1, 4])}
    with pytest.raises(ValueError, match="optimization profile 1 was refused"):
        configured(fake(), {"profiles": [ONE, empty]})


def test_both_limits_of_memory_reach_the_builder_and_none_where_none_is_given(fake) -> None:  # type: ignore[no-untyped-def]
    assert configured(fake(), {}).limits == {}
    limits = configured(fake(), {"workspace_bytes": 100, "tactic_bytes": 400}).limits
    assert limits == {"WORKSPACE": 100, "TACTIC_DRAM": 400}


def test_an_engine_whose_runs_are_captured_takes_no_memory_by_itself(fake) -> None:  # type: ignore[no-untyped-def]
    rtx = fake(flags=("REQUIRE_USER_ALLOCATION",))
    assert configured(rtx, {"captured": True}).flags == ["REQUIRE_USER_ALLOCATION"]
    assert configured(rtx, {}).flags == []
    assert configured(fake(), {"captured": True}).flags == []  # TensorRT has no such flag


@pytest.mark.parametrize("trouble", [{"no_cache_of": (b"old",)}, {"not_taken": (b"old",)}])
def test_timings_that_cannot_be_read_or_are_another_versions_are_measured_again(  # type: ignore[no-untyped-def]
    trouble: dict[str, tuple[bytes, ...]], fake, tmp_path: Path
) -> None:
    (tmp_path / "t.cache").write_bytes(b"old")
    config = fake(**trouble)._config()
    use_timing_cache(config, tmp_path / "t.cache")
    assert config.cache.blob == b""
    keep_timing_cache(config, tmp_path / "t.cache")
    assert (tmp_path / "t.cache").read_bytes() == b"timings"


def test_timings_that_fit_are_used(fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "t.cache").write_bytes(b"good")
    config = fake()._config()
    use_timing_cache(config, tmp_path / "t.cache")
    assert config.cache.blob == b"good"


@pytest.mark.parametrize(
    "trouble", [{"no_cache_of": (b"",)}, {"not_taken": (b"",)}, {"timings": None}], ids=["none", "false", "unwritten"]
)
def test_a_builder_without_a_timing_cache_builds_and_leaves_no_file(  # type: ignore[no-untyped-def]
    trouble: dict[str, object], fake, tmp_path: Path
) -> None:
    config = fake(**trouble)._config()
    use_timing_cache(config, tmp_path / "t.cache")
    keep_timing_cache(config, tmp_path / "t.cache")
    assert os.listdir(tmp_path) == []
