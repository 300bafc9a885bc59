from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from storm_edge.export.build.goal import judge
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import prepare
from storm_edge.export.build.tensorrt import compile as module
from storm_edge.export.build.tensorrt.compile import compile_graph
from storm_edge.export.build.tensorrt.compile_child import CompileError, classify, compile_engine
from storm_edge.export.build.tensorrt.compile_job import CompileJob
from storm_edge.export.build.tensorrt.profiles import profiles
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.initialize import initialize
from storm_edge.runtime.bundle.engine import FoundLayers, ProfileShapes
from storm_edge.runtime.bundle.manifest import STAGES, Bundle
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target


def job(graph: Path, tmp_path: Path, sm: int, **changes: object) -> CompileJob:
    fields = {"package": "tensorrt_rtx", "graph": str(graph), "engine": str(tmp_path / "out.engine"), "profiles": []}
    return CompileJob.model_validate(fields | {"compute_capabilities": [sm]} | changes)


def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let `body` run in the place of the child process."""
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\n{body}\n")
    os.chmod(script, 0o755)
    monkeypatch.setattr(module.sys, "executable", str(script))


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("precision", "llm_precision", "sm"), [("fp16", "bf16", 86), ("bf16", "fp16", 89), ("fp16", "int4", 120)]
)
def test_tensorrt_for_rtx_compiles_every_prepared_graph(
    precision: str,
    llm_precision: str,
    sm: int,
    bundle: Path,
    copy_of,
    tmp_path: Path,  # type: ignore[no-untyped-def]
) -> None:
    opened = Bundle.open(copy_of(bundle))
    options = BuildOptions(precision, llm_precision, max_length=1024, max_frames=16)
    goal = judge(opened, target("rtx"), options, probe())
    graphs, _ = prepare(opened, goal)
    for stage in STAGES:
        result = compile_graph(job(opened.path(graphs[stage]), tmp_path, sm, profiles=goal.profiles[stage]))
        assert result.engine_bytes == (tmp_path / "out.engine").stat().st_size > 10_000
        assert result.peak_memory_bytes > 2**20
        assert result.failure is None


@pytest.mark.usefixtures("rtx")
def test_tensorrt_for_rtx_compiles_a_decoder_of_qwen3(config: StormConfig, tmp_path: Path) -> None:
    llm = config.llm.model_copy(update={"architecture": "qwen3", "head_width": 32})
    initialize(config.model_copy(update={"llm": llm}), tmp_path / "checkpoint")
    export_bundle(tmp_path / "checkpoint", tmp_path / "bundle")
    opened = Bundle.open(tmp_path / "bundle")
    options = BuildOptions(llm_precision="int4", max_length=1024, stages=("decoder",))
    goal = judge(opened, target("rtx"), options, probe())
    graphs, _ = prepare(opened, goal)
    result = compile_graph(job(opened.path(graphs["decoder"]), tmp_path, 89, profiles=goal.profiles["decoder"]))
    assert result.engine_bytes > 10_000


@pytest.mark.usefixtures("rtx")
def test_the_form_for_tensorrt_10_3_compiles_as_well(bundle: Path, copy_of, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    opened = Bundle.open(copy_of(bundle))
    options = BuildOptions(tensorrt="10.7", stages=("vision", "temporal"), max_frames=16)
    goal = judge(opened, target("orin"), options, probe())
    graphs, _ = prepare(opened, goal)
    model = onnx.load(opened.path(graphs["vision"]), load_external_data=False)
    assert (model.opset_import[0].version, "Attention" in {n.op_type for n in model.graph.node}) == (20, False)
    for stage in graphs:
        compile_graph(job(opened.path(graphs[stage]), tmp_path, 86, profiles=goal.profiles[stage]))
    older = judge(opened, target("orin"), BuildOptions(tensorrt="10.3", stages=("temporal",)), probe())
    stripped, _ = prepare(opened, older)
    assert not onnx.load(opened.path(stripped["temporal"]), load_external_data=False).functions


@pytest.mark.usefixtures("rtx")
def test_attention_without_a_fused_kernel_is_a_missing_tactic(tmp_path: Path) -> None:
    q, k, v, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4, 64, 32]) for n in "qkvy")
    graph = helper.make_graph([helper.make_node("Attention", ["q", "k", "v"], ["y"])], "g", [q, k, v], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11), tmp_path / "g.onnx")
    with pytest.raises(BuildError, match=r"cannot compile g\.onnx \(tactic: .*choose another --precision"):
        compile_graph(job(tmp_path / "g.onnx", tmp_path, 86))
    assert not (tmp_path / "out.engine").exists()


@pytest.mark.usefixtures("rtx")
def test_an_operator_nobody_has_a_plugin_for_is_told_apart(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Nothing", ["x"], ["y"], domain="storm")], "g", [x], [y])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("storm", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "g.onnx")
    with pytest.raises(BuildError, match=r"\(plugin: .*make plugin"):
        compile_graph(job(tmp_path / "g.onnx", tmp_path, 86))
    with pytest.raises(BuildError, match=r"\(plugin: .*missing\.so cannot be loaded"):
        compile_graph(job(tmp_path / "g.onnx", tmp_path, 86, plugins=["missing.so"]))


def test_a_missing_package_names_where_to_get_it(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    with pytest.raises(BuildError, match=r"missing package: .*JetPack's package on a Jetson"):
        compile_graph(job(tmp_path / "g.onnx", tmp_path, 86, package="tensorrt"))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})", r"\(memory: the system ended the builder"),
        ("import os; os.abort()", r"\(build: the builder ended by SIGABRT"),
        ("raise SystemExit('no room left')", r"\(build: the builder ended with exit status 1; no room left"),
    ],
)
def test_a_builder_that_dies_is_one_line(
    body: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder(tmp_path, monkeypatch, body)
    with pytest.raises(BuildError, match=words):
        compile_graph(job(tmp_path / "g.onnx", tmp_path, 86))


def test_a_builder_with_much_to_say_is_not_stopped_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder(tmp_path, monkeypatch, "import sys; sys.stderr.write(10**6 * 'x' + ' the end'); sys.exit(1)")
    with pytest.raises(BuildError, match="the end"):
        compile_graph(job(tmp_path / "g.onnx", tmp_path, 86))


def test_who_stops_a_build_stops_the_builder_and_keeps_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder(tmp_path, monkeypatch, "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    seen: list[int] = []

    def stop(line: str) -> None:
        seen.append(int(line.split()[-1]))
        (tmp_path / "out.engine").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_graph(job(tmp_path / "g.onnx", tmp_path, 86), stop)
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)
    assert not (tmp_path / "out.engine").exists()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Requested size was 4294967296 bytes. [defaultAllocator] out of memory", "memory"),
        ("Plugin not found, are the plugin name, version, and namespace correct?", "plugin"),
        ("Could not find any implementation for node {ForeignNode[...]}", "tactic"),
        ("Networks with HW-specific datatypes: fp8_e4m3 can't be built for SM 8.6", "type"),
        ("something new", "build"),
    ],
)
def test_the_builders_words_are_told_apart(message: str, kind: str) -> None:
    assert classify([message], "build") == kind


def fake_job(tmp_path: Path, **changes: object) -> CompileJob:
    (tmp_path / "g.onnx").write_bytes(b"")
    shapes = ProfileShapes(min=[1, 4], opt=[1, 4], max=[1, 4])
    fields = {"package": "fake_tensorrt", "graph": str(tmp_path / "g.onnx"), "engine": str(tmp_path / "g.engine")}
    return CompileJob.model_validate(fields | {"profiles": [{"x": shapes}]} | changes)


@pytest.mark.parametrize(("streams", "how"), [(True, "stream"), (False, "plan")])
def test_an_engine_is_written_in_pieces_by_versions_that_can_and_at_once_by_older_ones(  # type: ignore[no-untyped-def]
    streams: bool, how: str, fake, tmp_path: Path
) -> None:
    trt = fake(streams=streams)
    result = compile_engine(fake_job(tmp_path))
    assert trt.calls == [how]
    assert (tmp_path / "g.engine").read_bytes() == trt.plan
    assert (result.version, result.engine_bytes) == (trt.__version__, len(trt.plan))


@pytest.mark.parametrize("streams", [True, False])
def test_a_disk_that_is_full_is_said_so(streams: bool, fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fake(streams=streams)
    with pytest.raises(CompileError, match="No space left on device") as failure:
        compile_engine(fake_job(tmp_path, engine="/dev/full"))
    assert failure.value.kind == "disk"


def test_the_engine_is_asked_for_the_networks_plugins(fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plugins = (("scan", "PLUGIN_V3"), ("conv", "PLUGIN_V3"), ("add", "ELEMENTWISE"))
    trt = fake(layers=plugins, inspected=["scan", "{ForeignNode[conv...y]}"])
    result = compile_engine(fake_job(tmp_path, plugins=["libstorm_tensorrt.so"]))
    assert trt.calls == ["stream", "load"]
    assert (result.layers.plugins, result.layers.plugins_found) == (2, 1)


def test_what_nobody_tells_of_an_engines_layers_is_none(fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fake(layers=(("scan", "PLUGIN_V3"),))
    assert compile_engine(fake_job(tmp_path)).layers == FoundLayers(plugins=1)


def test_attention_in_single_steps_is_looked_for_and_the_operator_is_not(fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fake(layers=(("softmax", "SOFTMAX"),), inspected=["_gemm_mha_v2_myl0_15"])
    layers = compile_engine(fake_job(tmp_path)).layers
    assert (layers.attentions, layers.attentions_fused) == (1, 1)
    trt = fake(layers=(("attention", "ATTENTION_INPUT"), ("softmax", "SOFTMAX")))
    assert compile_engine(fake_job(tmp_path)).layers == FoundLayers()
    assert trt.calls == ["stream"]  # an engine without questions is not loaded


def test_a_plugin_that_the_parser_did_not_take_is_no_build(fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fake(layers=(("loop", "TRIP_LIMIT"),))
    with pytest.raises(CompileError, match="expanded the operators though their plugin is loaded"):
        compile_engine(fake_job(tmp_path, plugins=["libstorm_tensorrt.so"]))


def test_the_memory_of_a_context_is_that_of_the_largest_profile(fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fake(says=("Total Activation Memory: 8192 bytes", "Total Activation Memory: 512 bytes"))
    assert compile_engine(fake_job(tmp_path)).activation_bytes == 8192


def test_timings_are_written_after_the_engine(fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fake()
    cache = tmp_path / "t" / "t.cache"
    with pytest.raises(CompileError):
        compile_engine(fake_job(tmp_path, engine="/dev/full", timing_cache=str(cache)))
    assert not cache.exists()
    compile_engine(fake_job(tmp_path, timing_cache=str(cache)))
    assert cache.read_bytes() == b"timings"


def test_profiles_follow_the_bundle_and_the_options(bundle: Path) -> None:
    made = profiles(Bundle.open(bundle), BuildOptions(max_frames=30))
    # The last group of four is filled up, so 30 frames are 32.
    clip = ProfileShapes(min=[1, 4, 16, 128], opt=[1, 32, 16, 128], max=[1, 32, 16, 128])
    assert made["temporal"] == [{"tokens": clip}]
    (vision,) = made["vision"]
    assert (vision["frames"].min, vision["frames"].max) == ([1, 64, 64, 3], [8, 64, 64, 3])


def test_the_decoder_has_a_profile_for_one_token_and_one_for_a_prompt(bundle: Path) -> None:
    one, prompt = profiles(Bundle.open(bundle), BuildOptions())["decoder"]
    assert one["inputs_embeds"] == ProfileShapes(min=[1, 1, 128], opt=[1, 1, 128], max=[1, 1, 128])
    assert one["position_ids"] == ProfileShapes(min=[1, 1], opt=[1, 1], max=[1, 1])
    assert prompt["inputs_embeds"] == ProfileShapes(min=[1, 1, 128], opt=[1, 512, 128], max=[1, 1536, 128])
    assert prompt["position_ids"] == ProfileShapes(min=[1, 1], opt=[1, 512], max=[1, 1536])


def test_an_engine_whose_kernels_are_made_when_it_runs_has_one_profile_for_both(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    (both,) = profiles(opened, BuildOptions(), shaped_later=True)["decoder"]
    assert both["inputs_embeds"] == ProfileShapes(min=[1, 1, 128], opt=[1, 1, 128], max=[1, 1536, 128])
    assert profiles(opened, BuildOptions(decoder_profiles=1))["decoder"] == [both]
    assert len(profiles(opened, BuildOptions(decoder_profiles=2), shaped_later=True)["decoder"]) == 2
