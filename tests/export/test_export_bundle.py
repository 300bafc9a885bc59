from __future__ import annotations

import filecmp
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from storm_edge.export import export_bundle as module
from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.initialize import initialize
from storm_edge.runtime import load
from storm_edge.runtime.bundle.engine import PREPARED
from storm_edge.runtime.bundle.manifest import MANIFEST, STAGES, Bundle
from storm_edge.runtime.config.schema import ReductionConfig, StormConfig, TemporalConfig
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.machine.targets import target

Copy = Callable[[Path], Path]


def files(folder: Path) -> list[str]:
    """What an export writes; builds add engines and graphs of theirs."""
    made = (p for p in folder.rglob("*") if p.is_file() and not PREPARED.fullmatch(p.name))
    return sorted(str(p.relative_to(folder)) for p in made if "engines" not in p.parts)


def test_exporting_twice_gives_identical_bytes(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere" / "again"
    export_bundle(checkpoint, again)
    assert files(again) == files(bundle)
    assert filecmp.cmpfiles(bundle, again, files(bundle), shallow=False)[1:] == ([], [])


def test_the_manifest_holds_no_time_path_or_host(checkpoint: Path, bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text()
    assert str(checkpoint) not in text
    assert str(bundle) not in text
    for stage in STAGES:
        assert b"/export/" not in (bundle / "graphs" / f"{stage}.onnx").read_bytes()


def test_the_canonical_graphs_keep_the_contract(bundle: Path) -> None:
    graphs = Bundle.open(bundle).manifest.graphs
    shown = {s: [(v.name, v.dtype, v.shape) for v in (*g.inputs[:3], *g.outputs[:1])] for s, g in graphs.items()}
    assert shown["vision"] == [
        ("frames", "uint8", ["frames", 64, 64, 3]),
        ("tokens", "float32", ["frames", 16, 128]),
    ]
    assert shown["temporal"] == [
        ("tokens", "float32", [1, "frames", 16, 128]),
        ("visual_tokens", "float32", [1, "pooled_frames", 16, 128]),
    ]
    assert shown["decoder"] == [
        ("inputs_embeds", "float32", [1, "sequence", 128]),
        ("position_ids", "int64", [1, "sequence"]),
        ("write_indices", "int64", [1]),
        ("logits", "float32", [1, 1, 4096]),
    ]
    assert (graphs["vision"].opset, graphs["temporal"].opset, graphs["decoder"].opset) == (24, 20, 24)


@pytest.mark.parametrize("stage", STAGES)
def test_every_graph_passes_onnx_own_full_check(stage: str, bundle: Path) -> None:
    onnx.checker.check_model(str(bundle / "graphs" / f"{stage}.onnx"), full_check=True)


def test_the_vision_graph_starts_with_a_cast_and_has_one_attention_per_block(bundle: Path, config: StormConfig) -> None:
    graph = onnx.load(bundle / "graphs" / "vision.onnx", load_external_data=False).graph
    assert graph.node[0].op_type == "Cast"
    assert [n.op_type for n in graph.node].count("Attention") == config.vision.layers_run == 4


def test_the_temporal_graph_carries_its_operators_as_nodes_and_as_functions(bundle: Path) -> None:
    model = onnx.load(bundle / "graphs" / "temporal.onnx", load_external_data=False)
    directions = [
        (n.op_type, {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}["reverse"])
        for n in model.graph.node
        if n.domain == "storm"
    ]
    assert sorted(directions) == sorted(2 * [(op, r) for op in ("CausalConv1d", "SelectiveScan") for r in (0, 1)])
    assert {f.name for f in model.functions} == {"CausalConv1d", "SelectiveScan"}


def test_the_reference_record_has_every_stage_and_64_greedy_tokens(bundle: Path) -> None:
    for name in Bundle.open(bundle).manifest.clips:
        clip = load_file(bundle / name)
        count = len(clip["frames"])
        assert clip["tokens"].shape == (count, 16, 128)
        assert clip["visual_tokens"].shape == (1, count // 4, 16, 128)
        assert clip["logits"].shape == (64, 4096)
        np.testing.assert_array_equal(clip["logits"].argmax(1), clip["greedy"])
        assert len(set(clip["greedy"].tolist())) > 3  # not one token over and over, which proves little


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_bundles_run_on_the_cpu_widened(dtype: str, config: StormConfig, tmp_path: Path) -> None:
    initialize(config.model_copy(update={"dtype": dtype}), tmp_path / "checkpoint")
    export_bundle(tmp_path / "checkpoint", tmp_path / "bundle")
    opened = Bundle.open(tmp_path / "bundle")
    assert {v.dtype for v in opened.manifest.graphs["temporal"].outputs} == {dtype}
    record = build(opened, target("cpu"), BuildOptions())
    assert record.verified
    assert all(name.startswith("graphs/cpu-fp32.") for name in record.graphs.values())
    assert load(tmp_path / "bundle").open(np.zeros((4, 64, 64, 3), np.uint8)).ask("What?").stats.prompt_tokens


def test_pooling_is_chosen_at_export(checkpoint: Path, tmp_path: Path) -> None:
    export_bundle(checkpoint, tmp_path / "bundle", temporal_pool=2, spatial_pool=2)
    opened = Bundle.open(tmp_path / "bundle")
    assert (opened.config.reduction.temporal_pool, opened.config.reduction.spatial_pool) == (2, 2)
    assert build(opened, target("cpu"), BuildOptions()).verified
    assert load(tmp_path / "bundle").open(np.zeros((8, 64, 64, 3), np.uint8)).rows.shape == (4 * 4, 128)
    with pytest.raises(UsageError, match="spatial_pool 3 does not divide"):
        export_bundle(checkpoint, tmp_path / "other", spatial_pool=3)


def test_every_option_of_the_model_exports_and_verifies(config: StormConfig, tmp_path: Path) -> None:
    config = config.model_copy(
        update={
            "temporal": TemporalConfig(
                num_layers=1, d_state=4, d_conv=3, bidirectional=False, downsample=4, projector_norm=True, dt_rank=5
            ),
            "reduction": ReductionConfig(temporal_pool=3, newline_token=True),
            "llm": config.llm.model_copy(update={"num_hidden_layers": 1, "tie_word_embeddings": False}),
        }
    )
    initialize(config, tmp_path / "checkpoint")
    export_bundle(tmp_path / "checkpoint", tmp_path / "bundle")
    assert build(Bundle.open(tmp_path / "bundle"), target("cpu"), BuildOptions()).verified
    video = load(tmp_path / "bundle").open(np.zeros((6, 64, 64, 3), np.uint8))
    assert video.rows.shape == (2 * (4 + 1), 128)  # the newline's embedding follows every pooled frame


def test_an_existing_bundle_is_replaced_only_when_forced(checkpoint: Path, bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"exists already: .*--force"):
        export_bundle(checkpoint, bundle)


def test_an_interrupted_export_leaves_nothing_and_spoils_nothing(
    checkpoint: Path, bundle: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_of(bundle)
    before = {name: (copy / name).read_bytes() for name in files(copy)}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "trace_temporal", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(checkpoint, copy, force=True)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(checkpoint, copy.parent / "new")
    assert [p.name for p in copy.parent.iterdir()] == [copy.name]
    assert {name: (copy / name).read_bytes() for name in files(copy)} == before
    assert json.loads((copy / MANIFEST).read_text())["schema_version"] == 2


DEMO = Path(__file__).parents[2] / "demo" / "checkpoint"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_demo_of_rounded_weights_builds_and_the_price_of_rounding_is_told(dtype: str, tmp_path: Path) -> None:
    notes = export_bundle(DEMO, tmp_path / "bundle", dtype=dtype)
    opened = Bundle.open(tmp_path / "bundle")
    record = build(opened, target("cpu"), BuildOptions())  # by the limits of fp32, as its arithmetic is
    assert record.verified
    assert len(record.verification) == 40
    reference = opened.manifest.reference
    assert reference.weights == dtype
    assert reference.rounding is not None
    bits = 11 if dtype == "float16" else 8
    for price in (reference.rounding.visual_tokens, reference.rounding.logits):
        assert 2.0 ** -(bits + 2) < price.error < 16 * 2.0**-bits
        assert 0.999 < price.cosine < 1
    assert 0.9 < reference.rounding.tokens <= 1
    assert f"the checkpoint's weights rounded to {dtype}" in notes[0]
    assert "greedy tokens" in notes[1]


def test_nothing_is_rounded_and_nothing_has_a_price_in_the_checkpoints_own_type(bundle: Path) -> None:
    reference = Bundle.open(bundle).manifest.reference
    assert (reference.weights, reference.rounding) == ("float32", None)


def test_a_large_checkpoint_is_rounded_layer_by_layer(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WHOLE_MODEL_BYTES", 1)
    monkeypatch.setattr(module, "load_language_model", None)
    export_bundle(checkpoint, tmp_path / "bundle", dtype="bfloat16")
    opened = Bundle.open(tmp_path / "bundle")
    assert opened.manifest.reference.rounding is not None
    assert build(opened, target("cpu"), BuildOptions()).verified


def with_context(checkpoint: Path, positions: int) -> Path:
    data = json.loads((checkpoint / "config.json").read_text())
    data["llm"]["max_position_embeddings"] = positions
    (checkpoint / "config.json").write_text(json.dumps(data))
    return checkpoint


def test_a_context_that_a_reference_clip_does_not_fit_is_refused(checkpoint: Path, copy_of: Copy) -> None:
    copy = with_context(copy_of(checkpoint), 100)
    with pytest.raises(UsageError, match=r"clip of 8 frames takes \d+ positions, but .*max_position_embeddings is 100"):
        export_bundle(copy, copy.parent / "small")


def test_a_context_that_the_default_frames_do_not_fit_is_told(checkpoint: Path, bundle: Path, copy_of: Copy) -> None:
    copy = with_context(copy_of(checkpoint), 220)
    notes = export_bundle(copy, copy.parent / "small")
    assert "32 frames, the default, take 128 positions, but llm.max_position_embeddings is 220: " in notes[-1]
