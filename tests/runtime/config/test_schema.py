from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.checkpoint.shapes import language_shapes, temporal_shapes, vision_shapes
from storm_edge.runtime.bundle.manifest import MANIFEST, Bundle
from storm_edge.runtime.config.presets import PRESETS
from storm_edge.runtime.config.schema import StormConfig, parse_config
from storm_edge.runtime.errors import BundleError, CheckpointError

NUMBERS = [
    (section, name)
    for section, fields in StormConfig().model_dump().items()
    if isinstance(fields, dict)
    for name, value in fields.items()
    if name == "dt_rank" or (isinstance(value, int | float) and not isinstance(value, bool))
]


@pytest.mark.parametrize("value", [10**9, 10**400, float("inf"), float("nan"), -float("inf")])
@pytest.mark.parametrize(("section", "name"), NUMBERS)
def test_every_number_has_a_limit(section: str, name: str, value: float) -> None:
    if (name, value) == ("rope_theta", 10**9):
        value = 10**13
    with pytest.raises(CheckpointError, match=rf"{section}\.{name}") as e:
        parse_config({section: {name: value}}, "config.json")
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 500


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"vision": {"image_size": 8192, "patch_size": 1}}, "patches"),
        ({"vision": {"image_size": 4096}, "temporal": {"downsample": 1}}, "visual tokens of a frame"),
        (
            {"llm": {"hidden_size": 57344, "num_attention_heads": 448}, "temporal": {"expand": 64}},
            "channels of the scan",
        ),
        ({"llm": {"hidden_size": 57344, "intermediate_size": 262144, "num_hidden_layers": 512}}, "parameters"),
    ],
)
def test_sizes_that_are_absurd_together_are_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=rf"make \d+ {words}"):
        parse_config(data, "config.json")


@pytest.mark.parametrize("name", PRESETS)
def test_the_parameter_count_is_that_of_the_tensors_but_for_vectors(name: str) -> None:
    config = PRESETS[name]
    shapes = vision_shapes(config) | temporal_shapes(config) | language_shapes(config.llm)
    count = sum(math.prod(shape) for shape in shapes.values())
    assert count == pytest.approx(config.parameters, rel=0.02)


def test_huge_sizes_over_small_files_are_refused_from_the_headers(
    checkpoint: Path, copy_of: Callable[[Path], Path]
) -> None:
    copy = copy_of(checkpoint)
    data = json.loads((copy / "config.json").read_text())
    data["llm"] |= {"num_hidden_layers": 500, "vocab_size": 4_000_000, "intermediate_size": 200_000}
    (copy / "config.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"missing model\.layers\.4\..*embed_tokens\.weight is \[4096, 128\]"):
        Checkpoint.open(copy)


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("vision", {"image_size": 8192, "patch_size": 64}),
        ("llm", {"num_hidden_layers": 500}),
        ("llm", {"vocab_size": 4_000_000}),
        ("llm", {"num_attention_heads": 2, "num_key_value_heads": 1}),
        ("reduction", {"spatial_pool": 2}),
    ],
)
def test_a_bundle_whose_configuration_is_not_its_graphs_is_refused(
    section: str, changes: dict[str, int], bundle: Path, tmp_path: Path
) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["config"][section] |= changes
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="graph is not what its configuration says"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_in_a_file_gives_one_line(word: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(f'{{"llm": {{"rope_theta": {word}, "hidden_size": {word}}}}}')
    with pytest.raises(CheckpointError, match=r"llm\.hidden_size: .*llm\.rope_theta: ") as e:
        Checkpoint.open(tmp_path)
    assert "\n" not in str(e.value)
