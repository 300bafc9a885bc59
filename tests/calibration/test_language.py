from __future__ import annotations

import importlib.util
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from storm_edge.calibration.calibrate import calibrate
from storm_edge.calibration.language import Language
from storm_edge.demo.dataset import samples
from storm_edge.export.build.build import build
from storm_edge.export.build.goal import judge
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import prepare
from storm_edge.export.build.tensorrt.compile import compile_graph
from storm_edge.export.build.tensorrt.compile_job import CompileJob
from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.bundle.calibration import find_calibration
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import BuildError, TargetError
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.proof.divergence import logit_divergence


def asked(number: int = 8) -> Iterator[tuple[NDArray[np.uint8], str]]:
    for sample in islice(samples(frames=8, size=64, split="train"), number):
        yield sample.frames, sample.question.text


def clips() -> Iterator[NDArray[np.uint8]]:
    return (clip for clip, _ in asked())


Copy = Callable[[Path], Path]
FP8 = BuildOptions(precision="fp16", llm_precision="fp8", threads=1)
SIMULATED = replace(FP8, simulate=True)
DECODER = replace(FP8, stages=("decoder",), max_length=512)


@pytest.fixture(scope="module")
def observed(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The calibrated bundle, with a second calibration that observed the language model."""
    opened = Bundle.open(shutil.copytree(calibrated, tmp_path_factory.mktemp("observed") / "bundle"))
    language = Language(asked, prompts=3)
    calibrate(opened, clips, "llm", samples=8, budget=math.inf, threads=1, language=language)
    return opened


def test_every_layer_of_the_language_model_has_a_range_and_the_head_stays(observed: Bundle) -> None:
    found = find_calibration(observed, "llm")
    layers = found.layers.stages["decoder"]
    of_block = {f"model.layers.0.{m}" for m in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj")}
    assert of_block <= {layer.module for layer in layers.values()}
    cached = {f"model.layers.{i}.self_attn.{name}" for i in range(4) for name in ("k_rotated", "v_proj")}
    assert {layer.input for layer in layers.values()} | cached == set(found.ranges["decoder"])
    assert [layer.weight for layer in layers.values() if not layer.quantize] == ["model.embed_tokens.weight"]  # tied
    report = json.loads((observed.root / "calibration" / "llm" / "report.json").read_text())
    assert {name.split("/")[0] for name in report["tensors"]} == {"vision", "temporal", "decoder"}
    assert "decoder" not in find_calibration(observed, "clips").ranges


def test_a_simulated_fp8_language_model_answers_nearly_as_in_bf16(observed: Bundle) -> None:
    record = build(observed, target("h100"), SIMULATED)
    assert record.verified
    assert record.calibration.startswith("llm ")  # the only one that has the language model's ranges
    nodes = onnx.load(observed.path(record.graphs["decoder"]), load_external_data=False).graph.node
    quantized = [n for n in nodes if n.op_type == "QuantizeLinear"]
    layers = find_calibration(observed, "llm").layers.stages["decoder"].values()
    assert len(quantized) == len({layer.input for layer in layers if layer.quantize})
    plain = build(observed, target("h100"), replace(SIMULATED, llm_precision="bf16", calibration=None))
    stages = [load(observed.root, name).stages for name in (record.name, plain.name)]
    fp8, bf16 = (logit_divergence(observed, s).kl for s in stages)
    assert bf16 < fp8 < 0.1


def test_what_stays_in_floating_point_is_chosen_in_layers_json(observed: Bundle, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(observed.root))
    path = opened.root / "calibration" / "llm" / "layers.json"
    layers = json.loads(path.read_text())
    for layer in layers["stages"]["decoder"].values():
        layer["quantize"] = layer["weight"] == "model.embed_tokens.weight"
    path.write_text(json.dumps(layers))
    graphs, _ = prepare(opened, judge(opened, target("thor"), DECODER, probe()))
    graph = onnx.load(opened.path(graphs["decoder"]), load_external_data=False).graph
    small = [t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT8E4M3FN and len(t.dims) == 2]
    assert small == ["model.embed_tokens.weight.quantized"]


def test_fp8_without_the_language_models_ranges_says_how_to_get_them(observed: Bundle) -> None:
    with pytest.raises(BuildError, match=r"calibration clips of .* did not observe the language model.* --llm` first"):
        build(observed, target("h100"), replace(SIMULATED, calibration="clips"))
    for precision in ("fp16", "fp8"):
        with pytest.raises(BuildError, match="no calibration 'x'"):
            build(observed, target("h100"), replace(SIMULATED, precision=precision, calibration="x"))
    with pytest.raises(TargetError, match="has no FP8 units, they start at SM 89: use --llm-precision"):
        build(observed, target("rtx"), replace(FP8, sms=(86, 89)))


def test_ranges_of_another_decoder_are_refused(observed: Bundle, copy_of: Copy) -> None:
    root = copy_of(observed.root)
    path = root / "calibration" / "llm" / "ranges.safetensors"
    raw = path.read_bytes()
    here = raw.index(b'\\"decoder\\":\\"') if b'\\"decoder\\":\\"' in raw else raw.index(b'decoder\\": \\"')
    at = raw.index(b'"', here + len(b'decoder\\": \\')) + 1
    path.write_bytes(raw[:at] + (b"0" if raw[at : at + 1] != b"0" else b"1") + raw[at + 1 :])
    with pytest.raises(BuildError, match="observed on another decoder graph"):
        find_calibration(Bundle.open(root), "llm")


def test_without_questions_there_is_nothing_to_observe(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    with pytest.raises(BuildError, match="the data gave no questions"):
        calibrate(opened, clips, "a", samples=8, budget=math.inf, threads=1, language=Language(lambda: []))
    assert not (opened.root / "calibration" / "a").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed: pip install .[rtx]"
)
@pytest.mark.parametrize("sm", [89, 120])
def test_tensorrt_for_rtx_compiles_it(sm: int, observed: Bundle, copy_of: Copy, tmp_path: Path) -> None:
    opened = Bundle.open(copy_of(observed.root))
    goal = judge(opened, target("rtx"), DECODER, probe())
    graphs, _ = prepare(opened, goal)
    job = CompileJob(
        package="tensorrt_rtx",
        graph=str(opened.path(graphs["decoder"])),
        engine=str(tmp_path / "out.engine"),
        profiles=goal.profiles["decoder"],
        compute_capabilities=[sm],
    )
    assert compile_graph(job).engine_bytes > 10_000
