from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from storm_edge.export.build import build as builds
from storm_edge.export.build import publish as publishing
from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.tensorrt import build as module
from storm_edge.export.build.tensorrt import engines
from storm_edge.export.build.tensorrt.compile_job import CompileJob, CompileResult
from storm_edge.export.build.tensorrt.plugin import findings, warnings
from storm_edge.runtime.bundle.engine import CheckResult, EngineRecord, FoundLayers
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import TargetError
from storm_edge.runtime.machine.probe import Gpu, Machine
from storm_edge.runtime.machine.targets import target

Copy = Callable[[Path], Path]
NOTHING = (None, None, None, None, False, None, None, None, None)
WORKSTATION = Machine((), *NOTHING)
MACHINES = {"h100": Machine((Gpu("NVIDIA H100", 90),), *NOTHING), "rtx": Machine((Gpu("RTX 4090", 89),), *NOTHING)}
ENCODERS = BuildOptions(stages=("vision", "temporal"), max_frames=16)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[CompileJob]:
    """The jobs of builds on a machine without the plugin, where compiling and verifying always succeed."""
    seen: list[CompileJob] = []

    def compile_graph(job: CompileJob, _: object) -> CompileResult:
        seen.append(job)
        Path(job.engine).write_bytes(b"engine")
        return CompileResult(version="10.16", layers=FoundLayers(attentions=2, attentions_fused=2))

    row = CheckResult(clip="clip0", stage="vision", metric="cosine", value=1, limit=0.9, passed=True)
    monkeypatch.setenv("STORM_PLUGIN_PATH", "")
    monkeypatch.setattr(engines, "compile_graph", compile_graph)
    monkeypatch.setattr(module, "require_package", lambda runner: "10.16")
    monkeypatch.setattr(engines, "timing_cache", lambda goal: Path("t.cache"))
    monkeypatch.setattr(publishing, "verify", lambda *_, **__: [row])
    return seen


@pytest.mark.parametrize("name", ["h100", "rtx"])
def test_an_engine_that_will_run_is_not_compiled_without_the_plugin_unless_that_is_asked_for(
    name: str, bundle: Path, copy_of: Copy, jobs: list[CompileJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(copy_of(bundle))
    monkeypatch.setattr(builds, "probe", lambda: MACHINES[name])
    with pytest.raises(
        TargetError, match=r"a loop of 256 steps: build it with `make plugin`, or give --without-plugin"
    ):
        build(opened, target(name), ENCODERS)
    assert jobs == []
    record = build(opened, target(name), replace(ENCODERS, without_plugin=True))
    assert [job.plugins for job in jobs] == [[], []]
    assert record.plugin_sha256 is None
    assert "its scan is a loop over all tokens" in warnings(record)[0]


def test_what_is_compiled_for_gpus_elsewhere_is_compiled_without_the_plugin_with_a_warning(
    bundle: Path, copy_of: Copy, jobs: list[CompileJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds, "probe", lambda: WORKSTATION)
    record = build(Bundle.open(copy_of(bundle)), target("rtx"), replace(ENCODERS, sms=(86,)))
    assert (record.state, record.plugin_sha256) == ("compiled", None)
    assert "without the operators' plugin" in warnings(record)[0]


def test_an_engine_that_has_the_plugin_can_be_made_without_it(
    bundle: Path, copy_of: Copy, jobs: list[CompileJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libstorm_tensorrt.so").write_bytes(b"library")
    monkeypatch.setenv("STORM_PLUGIN_PATH", str(tmp_path))
    monkeypatch.setattr(builds, "probe", lambda: MACHINES["h100"])
    opened = Bundle.open(copy_of(bundle))
    record = build(opened, target("h100"), ENCODERS)
    assert record.plugin_sha256
    assert warnings(record) == []
    assert jobs[1].plugins == [str(tmp_path / "libstorm_tensorrt.so")]
    assert build(opened, target("h100"), replace(ENCODERS, without_plugin=True)).plugin_sha256 is None


def test_a_tensorrt_that_cannot_expand_the_operators_is_not_told_to(
    bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds, "probe", lambda: WORKSTATION)
    options = replace(ENCODERS, tensorrt="10.3", without_plugin=True, prepare_only=True)
    with pytest.raises(TargetError, match=r"TensorRT 10\.3 cannot expand the operators"):
        build(Bundle.open(copy_of(bundle)), target("h100"), options)


def found(**layers: FoundLayers) -> EngineRecord:
    return EngineRecord.model_construct(sms=[90], plugin_sha256="a", layers=layers, wide_softmax=False)


def test_what_was_found_of_the_layers_is_said_and_what_is_missing_warned_of() -> None:
    record = found(
        vision=FoundLayers(attentions=26, attentions_fused=0), temporal=FoundLayers(plugins=8, plugins_found=6)
    )
    assert findings(record) == [
        "vision: fused attentions: 0 of 26 in the engine",
        "temporal: plugins: 6 of 8 in the engine",
    ]
    assert warnings(record) == [
        "vision: 0 of 26 attentions are fused: try it with --wide-softmax.",
        "temporal: the engine has 6 of the network's 8 plugins.",
    ]
    silent = found(temporal=FoundLayers(plugins=8), decoder=FoundLayers())
    assert findings(silent) == ["temporal: plugins: nothing told"]
    assert warnings(silent) == []
