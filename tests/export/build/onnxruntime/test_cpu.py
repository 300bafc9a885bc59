"""storm-7b's head sizes, grouping and frame size in a small model; `make engines-report` compiles its full widths."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from storm_edge.export.build.goal import judge
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import prepare
from storm_edge.export.build.tensorrt.compile import compile_graph
from storm_edge.export.build.tensorrt.compile_job import CompileJob
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.initialize import initialize
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed: pip install .[rtx]"
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """2 vision blocks of 2 heads of 72 over 1024 patches, 1 temporal layer, 2 decoder layers of 7 heads of 128 on 1."""
    full = preset("storm-7b")
    vision = {"num_hidden_layers": 3, "hidden_size": 144, "num_attention_heads": 2, "intermediate_size": 544}
    heads = {"hidden_size": 896, "num_attention_heads": 7, "num_key_value_heads": 1}
    llm = heads | {"num_hidden_layers": 2, "intermediate_size": 4736, "vocab_size": 4096}
    config = full.model_copy(
        update={
            "dtype": "float32",
            "vision": full.vision.model_copy(update=vision),
            "temporal": full.temporal.model_copy(update={"num_layers": 1}),
            "llm": full.llm.model_copy(update=llm),
        }
    )
    folder = tmp_path_factory.mktemp("wide")
    initialize(config, folder / "checkpoint")
    export_bundle(folder / "checkpoint", folder / "bundle")
    return Bundle.open(folder / "bundle")


@pytest.mark.parametrize(
    ("stage", "precision", "llm_precision"),
    [
        ("vision", "fp16", "bf16"),
        ("temporal", "fp16", "bf16"),
        ("decoder", "fp16", "bf16"),
        ("decoder", "fp16", "fp16"),
        ("decoder", "fp16", "int4"),
    ],
)
def test_tensorrt_for_rtx_compiles_it_for_three_generations_at_once(
    stage: Stage, precision: str, llm_precision: str, wide: Bundle, tmp_path: Path
) -> None:
    options = BuildOptions(precision, llm_precision, stages=(stage,), max_frames=8, max_length=4096)
    goal = judge(wide, target("rtx"), options, probe())
    graphs, _ = prepare(wide, goal)
    result = compile_graph(
        CompileJob(
            package="tensorrt_rtx",
            graph=str(wide.path(graphs[stage])),
            engine=str(tmp_path / "out.engine"),
            profiles=goal.profiles[stage],
            compute_capabilities=[86, 89, 120],
        )
    )
    assert result.engine_bytes == (tmp_path / "out.engine").stat().st_size > 100_000
