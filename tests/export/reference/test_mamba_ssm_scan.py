from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from storm_edge.export.network import temporal
from storm_edge.export.reference import mamba_ssm_scan
from storm_edge.plugins.selective_scan.torch_op import scan_token_by_token, selective_scan

BATCH, LENGTH, CHANNELS, STATE = 1, 7, 6, 4


def fn(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, **others: Any) -> tuple[Tensor, Tensor]:
    """What mamba_ssm documents: u, delta and z (batch, channels, length), B and C (batch, state, length)."""
    assert u.shape == others["z"].shape == (BATCH, CHANNELS, LENGTH)
    assert B.shape == C.shape == (BATCH, STATE, LENGTH)
    assert others["delta_softplus"]
    assert others["return_last_state"]
    state = torch.zeros(BATCH, CHANNELS, STATE)
    turned = (x.transpose(1, 2) for x in (u, delta, B, C, others["z"]))
    u, delta, B, C, z = turned
    y, last = scan_token_by_token(u, delta, A, B, C, D, z, others["delta_bias"], state, False)
    return y.transpose(1, 2), last


@pytest.fixture
def mamba_ssm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("mamba_ssm.ops.selective_scan_interface")
    module.selective_scan_fn = fn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize("reverse", [False, True])
def test_its_kernel_is_given_its_own_layout_and_both_directions(reverse: bool, mamba_ssm: None) -> None:
    torch.manual_seed(0)
    shape, state = (BATCH, LENGTH, CHANNELS), (BATCH, LENGTH, STATE)
    inputs = [torch.randn(x) for x in (shape, shape, (CHANNELS, STATE), state, state, (CHANNELS,), shape, (CHANNELS,))]
    inputs[2] = -inputs[2].exp()
    inputs.append(torch.zeros(BATCH, CHANNELS, STATE))
    theirs, last = mamba_ssm_scan.mamba_ssm_scan(*inputs, reverse)
    ours, state_left = selective_scan(*inputs, reverse)
    torch.testing.assert_close(theirs, ours)
    torch.testing.assert_close(last, state_left)


def test_without_a_gpu_or_the_package_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not mamba_ssm_scan.use_mamba_ssm()
    assert temporal.selective_scan is selective_scan


def test_with_both_the_encoder_scans_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal, "selective_scan", selective_scan)  # put back at the end
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(mamba_ssm_scan.importlib.util, "find_spec", lambda name: object())
    assert mamba_ssm_scan.use_mamba_ssm()
    assert temporal.selective_scan is mamba_ssm_scan.mamba_ssm_scan
