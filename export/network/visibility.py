"""How far each direction of a temporal layer moves that layer's output, measured on random frames."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from storm_edge.export.checkpoint.weights import LazyTensor
from storm_edge.export.network.temporal import TemporalEncoder, TemporalLayer
from storm_edge.export.network.vision import VisionEncoder
from storm_edge.runtime.config.schema import StormConfig

_FRAMES = 2


def direction_moves(
    config: StormConfig, vision: Mapping[str, LazyTensor], temporal: Mapping[str, LazyTensor], least: float
) -> list[float]:
    """Per layer, the factor for `out_proj` that makes its weaker direction move the layer's input by `least`.

    Move is the norm of what one direction adds over the norm of the layer's input. Each layer is measured behind the
    layers before it, already scaled.
    """
    encoder = VisionEncoder(config).eval()
    state = {n.removeprefix("vision_model.").replace("encoder.layers.", "blocks."): t for n, t in vision.items()}
    state |= {n: t for n, t in temporal.items() if n.startswith("projector.")}
    _load(encoder, state)
    layers = TemporalEncoder(config).eval()
    _load(layers, temporal)
    side = config.vision.image_size
    frames = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (_FRAMES, side, side, 3), dtype=np.uint8)
    with torch.no_grad():
        x = encoder(torch.from_numpy(frames)).reshape(1, -1, config.llm.hidden_size)  # (1, frames * N, D)
        factors = []
        for layer in layers.layers:
            assert isinstance(layer, TemporalLayer)
            factors.append(least / weakest_move(layer, x))
            layer.mixer.out_proj.weight *= factors[-1]
            x = layer(x)
        return factors


def weakest_move(layer: TemporalLayer, x: torch.Tensor) -> float:
    """The smaller of the two directions' moves for the input x (batch, length, D)."""
    mixer = layer.mixer
    u, z = mixer.in_proj(layer.norm(x)).chunk(2, dim=-1)  # each (batch, length, channels)
    moves = [mixer.out_proj(mixer.direction(u, z, suffix)).norm() / x.norm() for suffix in mixer.suffixes]
    return float(min(moves)) * (0.5 if mixer.halve_sum else 1.0)


def _load(network: torch.nn.Module, state: Mapping[str, LazyTensor]) -> None:
    """Give a network its own of the tensors."""
    wanted = network.state_dict().keys()
    network.load_state_dict({name: _tensor(tensor) for name, tensor in state.items() if name in wanted})


def _tensor(tensor: LazyTensor) -> torch.Tensor:
    return torch.from_numpy(np.array(tensor.read(), dtype=np.float32))
