"""An independent witness: transformers' MambaMixer, which shares no code with the operators."""

import pytest
import torch
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from storm_edge.plugins.causal_conv1d.torch_op import causal_conv1d
from storm_edge.plugins.selective_scan.torch_op import selective_scan

RANK, STATE = 5, 16


@pytest.fixture(scope="module")
def mixer():
    """A mixer whose weights all differ from their initial ones and zeros, without its optional fast paths."""
    torch.manual_seed(0)
    config = MambaConfig(
        hidden_size=24,
        state_size=STATE,
        time_step_rank=RANK,
        num_hidden_layers=1,
        use_mambapy=False,
        use_associative_scan=False,
    )
    mixer = MambaMixer(config, layer_idx=0).eval()
    with torch.no_grad():
        for parameter in (mixer.D, mixer.A_log, mixer.conv1d.bias):
            parameter += 0.5 * torch.randn_like(parameter)
    return mixer


def mix_with_the_operators(mixer, hidden, reverse):
    xz = mixer.in_proj(hidden)  # (batch, length, 2 * channels)
    x, z = xz.chunk(2, dim=-1)  # (batch, length, channels)
    batch, _, channels = x.shape
    weight = mixer.conv1d.weight.squeeze(1)  # (channels, width)
    x, _ = causal_conv1d(x, weight, mixer.conv1d.bias, x.new_zeros(batch, weight.shape[1] - 1, channels), reverse)
    step, B, C = mixer.x_proj(x).split([RANK, STATE, STATE], dim=-1)
    delta = step @ mixer.dt_proj.weight.T  # (batch, length, channels)
    A = -mixer.A_log.exp()  # (channels, state)
    y, _ = selective_scan(
        x, delta, A, B, C, mixer.D, z, mixer.dt_proj.bias, x.new_zeros(batch, channels, STATE), reverse
    )
    return mixer.out_proj(y)


@torch.no_grad()
def test_conv_scan_and_gate_equal_transformers_mixer(mixer):
    hidden = torch.randn(1, 50, 24)
    torch.testing.assert_close(mix_with_the_operators(mixer, hidden, False), mixer(hidden), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_reverse_equals_transformers_mixer_on_flipped_tokens(mixer):
    hidden = torch.randn(1, 50, 24)
    expected = mixer(hidden.flip(1)).flip(1)
    torch.testing.assert_close(mix_with_the_operators(mixer, hidden, True), expected, rtol=1e-4, atol=1e-5)
    assert (mix_with_the_operators(mixer, hidden, False) - expected).abs().max() > 0.01
