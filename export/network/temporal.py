"""STORM's temporal encoder: bidirectional Mamba-1 layers over all visual tokens of a clip, then trained pooling.

arXiv 2503.04130, section 3; the Mamba-1 block is that of arXiv 2312.00752, the two directions share `in_proj` and
`out_proj` as in Vision Mamba (arXiv 2401.09417, "v2"). Parameter names are mamba_ssm's. This module does not know where
tokens come from, and has no feed-forward part and no positional embedding: neither has the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from storm_edge.export.network.pooling import Pooling
from storm_edge.export.network.selector import interleaving, query_places
from storm_edge.plugins.causal_conv1d.torch_op import causal_conv1d
from storm_edge.plugins.selective_scan.torch_op import selective_scan as selective_scan
from storm_edge.runtime.config.schema import StormConfig


class MambaMixer(nn.Module):
    """One Mamba-1 mixer, tokens (batch, length, D) -> (batch, length, D)."""

    def __init__(self, config: StormConfig):
        super().__init__()
        width, channels = config.llm.hidden_size, config.d_inner
        temporal = config.temporal
        self.state, self.dt_rank = temporal.d_state, config.dt_rank
        self.halve_sum = temporal.halve_sum
        self.in_proj = nn.Linear(width, 2 * channels, bias=False)
        self.frozen_halves: tuple[Tensor, Tensor] | None = None
        self.out_proj = nn.Linear(channels, width, bias=False)
        self.suffixes = ("", "_b") if temporal.bidirectional else ("",)
        for suffix in self.suffixes:
            self.add_module(f"conv1d{suffix}", nn.Conv1d(channels, channels, temporal.d_conv, groups=channels))
            self.add_module(f"x_proj{suffix}", nn.Linear(channels, self.dt_rank + 2 * self.state, bias=False))
            self.add_module(f"dt_proj{suffix}", nn.Linear(self.dt_rank, channels))
            # VideoMamba writes A_b_log, not A_log_b.
            self.register_parameter(self._a_log(suffix), nn.Parameter(torch.zeros(channels, self.state)))
            self.register_parameter(f"D{suffix}", nn.Parameter(torch.ones(channels)))
            self.register_buffer(f"A{suffix}", None, persistent=False)

    @staticmethod
    def _a_log(suffix: str) -> str:
        return f"A{suffix}_log"

    def decay(self, suffix: str) -> Tensor:
        """A of one direction, float32 (channels, state): -exp(A_log) in float64, rounded once."""
        frozen: Tensor | None = getattr(self, f"A{suffix}")
        return -torch.exp(self.get_parameter(self._a_log(suffix)).double()).float() if frozen is None else frozen

    def halves(self) -> tuple[Tensor, Tensor]:
        """The rows of in_proj that give x and those that give the gate z, each (channels, D)."""
        if self.frozen_halves is not None:
            return self.frozen_halves
        x, z = self.in_proj.weight.chunk(2)
        return x, z

    def direction(self, x: Tensor, z: Tensor, suffix: str) -> Tensor:
        """Convolution, scan and gate of one direction: x, z (batch, length, channels) -> the same shape."""
        batch, channels = x.shape[0], x.shape[2]
        conv, x_proj = self.get_submodule(f"conv1d{suffix}"), self.get_submodule(f"x_proj{suffix}")
        dt_proj = self.get_submodule(f"dt_proj{suffix}")
        assert isinstance(conv, nn.Conv1d)
        assert isinstance(dt_proj, nn.Linear)
        assert conv.bias is not None
        reverse = suffix == "_b"
        width = conv.kernel_size[0]
        x, _ = causal_conv1d(
            x, conv.weight.squeeze(1), conv.bias, x.new_zeros(batch, width - 1, channels), reverse
        )  # (batch, length, channels)
        dt, B, C = x_proj(x).split([self.dt_rank, self.state, self.state], dim=-1)
        # dt_proj.bias is added inside the scan, in fp32; adding it here as well would count it twice.
        delta = nn.functional.linear(dt, dt_proj.weight)  # (batch, length, channels)
        y, _ = selective_scan(
            x,
            delta,
            self.decay(suffix),
            B,
            C,
            self.get_parameter(f"D{suffix}").float(),
            z,
            dt_proj.bias.float(),
            torch.zeros(batch, channels, self.state, dtype=torch.float32, device=x.device),
            reverse,
        )
        return y

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix tokens (batch, length, D) along their length."""
        x, z = (nn.functional.linear(tokens, weight) for weight in self.halves())  # each (batch, length, channels)
        y = self.direction(x, z, "")
        if len(self.suffixes) == 2:
            y = y + self.direction(x, z, "_b")
            if self.halve_sum:
                y = y * 0.5
        mixed: Tensor = self.out_proj(y)
        return mixed


class TemporalLayer(nn.Module):
    """X + MambaMixer(Norm(X)) over tokens (batch, length, D)."""

    def __init__(self, config: StormConfig):
        super().__init__()
        norm = nn.LayerNorm if config.temporal.norm == "layer" else nn.RMSNorm
        self.norm = norm(config.llm.hidden_size, eps=config.temporal.layer_norm_eps)
        self.mixer = MambaMixer(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, length, D) -> the same shape."""
        mixed: Tensor = tokens + self.mixer(self.norm(tokens))
        return mixed


class TemporalEncoder(nn.Module):
    """All temporal layers and trained pooling: tokens (1, frames, N, D) -> (1, frames / k, N / p, D).

    The layers scan ONE sequence: raster order inside a frame, then frame by frame. `frames` is a multiple of k.
    A selector pools first, and has its layer see what was pooled among the tokens; that alone goes on.
    """

    def __init__(self, config: StormConfig):
        super().__init__()
        self.layers = nn.ModuleList(TemporalLayer(config) for _ in range(config.temporal.num_layers))
        self.pooling = Pooling(config)
        self.queries = config.temporal.queries

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix and pool the visual tokens of a clip."""
        _, frames, per_frame, width = tokens.shape
        x = tokens.reshape(1, frames * per_frame, width)
        pooled: Tensor
        if self.queries:
            pooled = self.pooling(x, frames)  # (1, frames / k, N / p, D)
            length, queries = x.shape[1], pooled.shape[1] * pooled.shape[2]
            every = torch.cat([x, pooled.reshape(1, queries, width)], dim=1)
            mixed: Tensor = self.layers[0](every.index_select(1, interleaving(length, queries)))
            return mixed.index_select(1, query_places(length, queries)).reshape(pooled.shape)
        for layer in self.layers:
            x = layer(x)
        pooled = self.pooling(x, frames)
        return pooled


def cast_for_export(encoder: TemporalEncoder, dtype: torch.dtype) -> None:
    """Make an fp32 encoder `dtype`, in place, but for what the scan reads as f32: A, D and the step-size bias.

    A becomes a value: the exporter folds small constants only, and an Exp left in the graph would be given a rounded
    A_log by whatever narrows the graph later. in_proj's halves become tensors of their own: a graph that computes x
    alone shares them.
    """
    kept = [
        (
            mixer,
            suffix,
            mixer.decay(suffix),
            mixer.get_parameter(f"D{suffix}").data,
            mixer.get_parameter(f"dt_proj{suffix}.bias").data,
        )
        for mixer in encoder.modules()
        if isinstance(mixer, MambaMixer)
        for suffix in mixer.suffixes
    ]
    encoder.to(dtype)
    for mixer in encoder.modules():
        if isinstance(mixer, MambaMixer):
            x, z = mixer.halves()
            mixer.frozen_halves = x.clone(), z.clone()
    for mixer, suffix, A, D, bias in kept:
        setattr(mixer, f"A{suffix}", A)
        mixer.get_parameter(f"D{suffix}").data = D
        mixer.get_parameter(f"dt_proj{suffix}.bias").data = bias
