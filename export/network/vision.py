"""The vision encoder: normalisation, SigLIP's blocks, space-to-depth, projection to the language model's width.

SigLIP itself is transformers'. The feature is a hidden state from before the final norm, and in VILA and LLaVA from
before the last block, so those are not run.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from storm_edge.runtime.config.schema import StormConfig, VisionConfig


def siglip_config(vision: VisionConfig) -> SiglipVisionConfig:
    """The transformers configuration of a tower without pooling head."""
    fields = vision.model_dump(exclude={"feature_layer", "image_mean", "image_std"})
    return SiglipVisionConfig(**fields, vision_use_head=False)


class Projector(nn.Module):
    """Space-to-depth, and one to three Linear: features (frames, grid, grid, C) -> tokens (frames, N, D)."""

    def __init__(self, config: StormConfig):
        super().__init__()
        self.side = config.temporal.downsample
        features, *outputs = config.projector_widths
        eps = config.temporal.layer_norm_eps
        self.norm = nn.LayerNorm(features, eps=eps) if config.temporal.projector_norm else None
        self.linear = nn.Linear(features, outputs[0])
        self.norm_2 = nn.LayerNorm(outputs[0], eps=eps) if len(outputs) == 3 else None
        self.linear_2 = nn.Linear(outputs[0], outputs[1]) if len(outputs) > 1 else None
        self.linear_3 = nn.Linear(outputs[1], outputs[2]) if len(outputs) == 3 else None

    def forward(self, features: Tensor) -> Tensor:
        """Channels of a block in the order top-left, top-right, bottom-left, bottom-right."""
        frames, grid, _, channels = features.shape
        if missing := -grid % self.side:
            features = nn.functional.pad(features, (0, 0, 0, missing, 0, missing))
        cells = (grid + missing) // self.side
        x = features.reshape(frames, cells, self.side, cells, self.side, channels)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(frames, cells * cells, self.side**2 * channels)
        if self.norm is not None:
            x = self.norm(x)
        tokens: Tensor = self.linear(x)
        if self.linear_2 is not None:
            inner = nn.functional.gelu(tokens)
            tokens = self.linear_2(inner if self.norm_2 is None else self.norm_2(inner))
        if self.linear_3 is not None:
            tokens = self.linear_3(nn.functional.gelu(tokens))
        return tokens


class VisionEncoder(nn.Module):
    """frames uint8 (frames, H, W, 3) -> tokens (frames, N, D), in the dtype of its parameters."""

    def __init__(self, config: StormConfig):
        super().__init__()
        tower = SiglipVisionModel(siglip_config(config.vision))
        self.embeddings = tower.embeddings
        self.blocks = nn.ModuleList(list(tower.encoder.layers)[: config.vision.layers_run])
        self.projector = Projector(config)
        self.grid = config.vision.grid
        mean, std = config.vision.image_mean, config.vision.image_std
        self.scale, self.shift = [255 * s for s in std], [m / s for m, s in zip(mean, std, strict=True)]

    def forward(self, frames: Tensor) -> Tensor:
        """Encode every frame by itself."""
        dtype = self.projector.linear.weight.dtype
        x = self.embeddings(self.normalized(frames).to(dtype))  # (frames, grid * grid, C)
        for block in self.blocks:
            x = block(x, attention_mask=None)
        tokens: Tensor = self.projector(x.reshape(x.shape[0], self.grid, self.grid, x.shape[-1]))
        return tokens

    def normalized(self, frames: Tensor) -> Tensor:
        """Frames as the tower takes them, (frames, 3, H, W) in fp32 whatever the weights' type."""
        pixels = frames.to(torch.float32).permute(0, 3, 1, 2)
        if len({*self.scale}) == len({*self.shift}) == 1:
            return pixels / self.scale[0] - self.shift[0]  # mean = std = 0.5 maps 0..255 to -1..1
        scale, shift = (torch.tensor(values).reshape(3, 1, 1) for values in (self.scale, self.shift))
        return pixels / scale - shift
