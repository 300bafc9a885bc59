from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from storm_edge.export.build.goal import judge
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.steps import nbits_steps, steps_for
from storm_edge.export.graph_file import load_model, save_model
from storm_edge.export.passes import fuse_decoder as passes
from storm_edge.export.passes.fuse_decoder import can_fuse, fuse_decoder
from storm_edge.export.passes.int4_blocks import Bits
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.onnxruntime import OnnxRuntimeDecoder
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target

LENGTH = 1024


@pytest.fixture(scope="module")
def fused(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's fp32 decoder, fused."""
    return fuse(bundle, tmp_path_factory.mktemp("fused") / "decoder.onnx")


@pytest.fixture(scope="module")
def turned_before(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as if its heads were none that the fused attention turns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "TURNED_HEADS", 64)
        return fuse(bundle, tmp_path_factory.mktemp("before") / "decoder.onnx")


def fuse(bundle: Path, path: Path) -> Path:
    opened = Bundle.open(bundle)
    loaded = load_model(opened.path(opened.manifest.graphs["decoder"].file))
    fuse_decoder(loaded.model, opened.config.llm, LENGTH)
    save_model(loaded.model, path, "decoder.data", loaded.tensors)
    return path


def decoder(bundle: Path, graph: Path, chunk: int = 256) -> OnnxRuntimeDecoder:
    opened = Bundle.open(bundle)
    embedding = EmbeddingTable.open(opened.path(opened.manifest.embedding))
    return OnnxRuntimeDecoder(graph, opened.config.llm, embedding, LENGTH, chunk)


@pytest.mark.parametrize(("form", "chunk"), [("fused", 7), ("fused", 256), ("turned_before", 7)])
def test_it_computes_what_the_canonical_graph_does(
    bundle: Path, form: str, chunk: int, request: pytest.FixtureRequest
) -> None:
    graph = request.getfixturevalue(form)
    canonical, ours = decoder(bundle, bundle / "graphs" / "decoder.onnx"), decoder(bundle, graph, chunk)
    rng = np.random.default_rng(0)
    prompt = rng.standard_normal((600, 128)).astype(np.float32)  # more than a step of the cache
    question = rng.standard_normal((9, 128)).astype(np.float32)
    for _ in range(2):
        for llm in (canonical, ours):
            llm.rewind(min(llm.position, 50))
        start = canonical.position
        expected, logits = (llm.append(prompt[start:]) for llm in (canonical, ours))
        np.testing.assert_allclose(logits, expected, atol=2e-4)
        expected, logits = (llm.append(question) for llm in (canonical, ours))
        for _ in range(12):
            np.testing.assert_allclose(logits, expected, atol=2e-4)
            token = int(expected.argmax())
            assert int(logits.argmax()) == token
            expected, logits = (llm.append(llm.embed([token])) for llm in (canonical, ours))


def test_it_needs_no_opset_above_20_and_nothing_that_only_newer_ones_have(bundle: Path, fused: Path) -> None:
    model = onnx.load(fused, load_external_data=False)
    canonical = onnx.load(bundle / "graphs" / "decoder.onnx", load_external_data=False)
    assert {(e.domain, e.version) for e in model.opset_import} == {("", 20), ("com.microsoft", 1)}
    assert model.ir_version <= 10
    fused_ones = {"GroupQueryAttention", "SimplifiedLayerNormalization"}
    standard = {n.op_type for n in model.graph.node} - fused_ones
    assert all(onnx.defs.get_schema(op, 20).since_version <= 20 for op in standard)
    assert [v.name for v in model.graph.input] == [v.name for v in canonical.graph.input]
    assert [v.name for v in model.graph.output] == [v.name for v in canonical.graph.output]
    assert len([n for n in model.graph.node if n.op_type == "GroupQueryAttention"]) == 4


def test_heads_that_it_does_not_turn_are_turned_before_it_in_the_graphs_own_opset(turned_before: Path) -> None:
    model = onnx.load(turned_before, load_external_data=False)
    assert {(e.domain, e.version) for e in model.opset_import} == {("", 24), ("com.microsoft", 1)}
    attentions = [n for n in model.graph.node if n.op_type == "GroupQueryAttention"]
    assert [a.i for n in attentions for a in n.attribute if a.name == "do_rotary"] == [0] * 4
    assert len([n for n in model.graph.node if n.op_type == "RotaryEmbedding"]) == 8


def test_a_graph_that_is_no_decoder_of_ours_is_refused(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    model = load_model(opened.path(opened.manifest.graphs["decoder"].file)).model
    for node in model.graph.node:
        if node.op_type == "RotaryEmbedding":
            node.op_type = "Identity"
    with pytest.raises(ValueError, match="belongs to Identity where the decoder has RotaryEmbedding"):
        fuse_decoder(model, opened.config.llm, LENGTH)


@pytest.mark.parametrize("bits", [4, 8])
def test_with_rounded_weights_it_differs_by_what_the_kernel_rounds_and_by_nothing_else(
    bundle: Path, tmp_path: Path, bits: Bits
) -> None:
    opened = Bundle.open(bundle)
    made = {}
    for form in ("standard", "fused"):
        loaded = load_model(opened.path(opened.manifest.graphs["decoder"].file))
        readers = dict(loaded.tensors)
        for step in nbits_steps(bits, 32):
            step.apply(loaded.model, readers)
        for attribute in (a for n in loaded.model.graph.node for a in n.attribute if a.name == "accuracy_level"):
            attribute.i = 1  # activations stay float32, which engines' kernels round to 8 bits
        if form == "fused":
            fuse_decoder(loaded.model, opened.config.llm, LENGTH)
        save_model(loaded.model, tmp_path / f"{form}.onnx", f"{form}.data", readers)
        llm = decoder(bundle, tmp_path / f"{form}.onnx")
        made[form] = llm.append(np.random.default_rng(0).standard_normal((300, 128)).astype(np.float32))
    np.testing.assert_allclose(made["fused"], made["standard"], atol=2e-4)


def test_it_is_for_heads_and_lengths_that_the_operator_takes() -> None:
    llm = preset("storm-7b").llm
    assert can_fuse(llm, 131_072)
    assert not can_fuse(llm, 10_485_760)  # tables of 5 GB
    assert not can_fuse(llm.model_copy(update={"num_attention_heads": 64}), 1024)  # heads of 56


@pytest.mark.parametrize(("llm_precision", "fused"), [("int4", True), ("int8", True), ("fp32", False)])
def test_engines_for_a_cpu_have_it_where_they_have_a_graph_of_their_own(
    bundle: Path, llm_precision: str, fused: bool
) -> None:
    goal = judge(Bundle.open(bundle), target("cpu"), BuildOptions("fp32", llm_precision), probe())
    assert ("fuse decoder" in [step.name for step in steps_for(Bundle.open(bundle), goal, "decoder")]) == fused
