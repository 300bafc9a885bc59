from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from storm_edge.export.build.tensorrt.layers import engine_layers, fused_attentions, inspected_names, plugins_found

# As TensorRT for RTX 1.7 lists them while it builds.
LISTED = """Layers:
Name: __mye7533_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: []
Name: scan_1__1_myl0_8, LayerType: custom_layer, Inputs: [ { Name: x, Dimensions: [1,-1,4] }], Constants: []
Name: scan_2__1 [profile 1]_myl1_9, LayerType: custom_layer, Inputs: [], Constants: []
Name: _gemm_mha_v2_myl0_15, LayerType: kgen, Inputs: []
"""
NAMES = ["__mye7533_0_myl0_0", "scan_1__1_myl0_8", "scan_2__1 [profile 1]_myl1_9", "_gemm_mha_v2_myl0_15"]


def test_plugins_are_found_by_their_own_names_and_not_by_longer_ones() -> None:
    assert plugins_found(["scan_1__1", "scan_2__1"], NAMES) == 2
    assert plugins_found(["scan_1", "scan"], NAMES) == 0
    assert plugins_found(["scan_1__1"], ["{ForeignNode[scan_1__1...y]}"]) == 0  # in another kernel: not called


def test_fused_attention_is_known_by_its_kernels_name() -> None:
    assert fused_attentions(NAMES) == 1


@pytest.mark.parametrize("form", [["scan_1__1"], [{"Name": "scan_1__1", "LayerType": "PluginV3"}]])
def test_both_forms_of_the_inspectors_answer_are_read(form: list[object]) -> None:
    assert inspected_names(json.dumps({"Layers": form, "Bindings": []})) == ["scan_1__1"]


@pytest.mark.parametrize("told", ["", "no JSON", "{}", '{"Layers": []}', '{"Layers": [{"Type": 1}]}', "[]"])
def test_an_answer_that_says_nothing_is_none(told: str) -> None:
    assert inspected_names(told) is None


def test_the_inspector_is_asked_first_and_the_builders_list_where_no_engine_loads(  # type: ignore[no-untyped-def]
    fake, tmp_path: Path
) -> None:
    engine, silent, spoke = tmp_path / "e", SimpleNamespace(layers=""), SimpleNamespace(layers=LISTED)
    engine.write_bytes(fake().plan)
    assert engine_layers(fake(inspected=["a"]), spoke, engine) == ["a"]
    assert engine_layers(fake(inspected=None), spoke, engine) == NAMES
    assert engine_layers(fake(inspected=None), silent, engine) is None
