from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer as TheirMixer

from storm_edge.export.network.temporal import MambaMixer, TemporalEncoder
from storm_edge.runtime.config.schema import LanguageConfig, ReductionConfig, StormConfig, TemporalConfig, VisionConfig


def make_config(**reduction: int) -> StormConfig:
    return StormConfig(
        vision=VisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
        temporal=TemporalConfig(num_layers=2, d_state=4),
        reduction=ReductionConfig(**{"temporal_pool": 2, **reduction}),
        llm=LanguageConfig(
            hidden_size=24,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            vocab_size=64,
        ),
    )


def random_mixer(config: StormConfig) -> MambaMixer:
    torch.manual_seed(0)
    mixer = MambaMixer(config)
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return mixer.requires_grad_(False)


def their_mixer(ours: MambaMixer, config: StormConfig, suffix: str) -> TheirMixer:
    """transformers' unidirectional mixer with the weights of one of our directions."""
    theirs = TheirMixer(
        MambaConfig(
            hidden_size=config.llm.hidden_size,
            state_size=config.temporal.d_state,
            conv_kernel=config.temporal.d_conv,
            expand=config.temporal.expand,
            time_step_rank=config.dt_rank,
        ),
        layer_idx=0,
    )
    state = ours.state_dict()
    names = {"A_log": f"A{suffix}_log", "D": f"D{suffix}"}
    for name, parameter in theirs.named_parameters():
        module, _, leaf = name.partition(".")
        shared = module in ("in_proj", "out_proj")
        parameter.data = state[names.get(name, name if shared else f"{module}{suffix}.{leaf}")]
    return theirs.requires_grad_(False).eval()


def test_both_directions_are_transformers_mixer_on_the_tokens_and_on_the_flipped_tokens() -> None:
    config = make_config()
    mixer = random_mixer(config)
    x = torch.randn(1, 37, 24)
    forward, backward = (their_mixer(mixer, config, suffix) for suffix in ("", "_b"))
    expected = forward(x) + backward(x.flip(1)).flip(1)
    torch.testing.assert_close(mixer(x), expected, rtol=1e-4, atol=1e-5)


def test_halve_sum_averages_the_directions() -> None:
    config = make_config()
    halved = config.model_copy(update={"temporal": config.temporal.model_copy(update={"halve_sum": True})})
    x = torch.randn(1, 9, 24)
    torch.testing.assert_close(random_mixer(halved)(x), random_mixer(config)(x) / 2)


def test_a_unidirectional_mixer_sees_no_later_token() -> None:
    config = make_config()
    config = config.model_copy(update={"temporal": config.temporal.model_copy(update={"bidirectional": False})})
    mixer = random_mixer(config)
    x = torch.randn(1, 12, 24)
    later = x.clone()
    later[:, 8:] = torch.randn(4, 24)
    torch.testing.assert_close(mixer(later)[:, :8], mixer(x)[:, :8])
    assert not torch.allclose(mixer(later)[:, 8:], mixer(x)[:, 8:])


@pytest.mark.parametrize(("temporal_pool", "spatial_pool"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_pooling_averages_frames_and_blocks_of_tokens(temporal_pool: int, spatial_pool: int) -> None:
    config = make_config(temporal_pool=temporal_pool, spatial_pool=spatial_pool)
    encoder = TemporalEncoder(config.model_copy(update={"temporal": TemporalConfig(num_layers=0)}))
    frames = 2 * temporal_pool
    tokens = torch.randn(1, frames, 4, 24)  # a frame has 2 x 2 tokens
    pooled: Tensor = encoder(tokens)
    for group in range(2):
        block = tokens[0, group * temporal_pool : (group + 1) * temporal_pool]  # (k, 4, D)
        expected = block.mean(0) if spatial_pool == 1 else block.mean((0, 1))[None]
        torch.testing.assert_close(pooled[0, group], expected)


def test_the_scan_runs_over_all_frames_as_one_sequence() -> None:
    config = make_config()
    encoder = TemporalEncoder(config).requires_grad_(False)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randn(1, 4, 4, 24)
    changed = tokens.clone()
    changed[:, 3] = torch.randn(4, 24)  # the last frame reaches the first pooled one only through the backward scan
    assert not torch.allclose(encoder(changed)[:, 0], encoder(tokens)[:, 0])
