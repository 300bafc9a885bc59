"""Reading PyTorch state dict files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from storm_edge.export.checkpoint.weights import LazyTensor
from storm_edge.runtime.errors import CheckpointError


def read_state_dict(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a .pt, .pth or .bin file as fp32, without running any code in it; raises CheckpointError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch.load raises whatever unpickling a damaged file raises
        raise CheckpointError(
            f"{path} is no PyTorch state dict ({' '.join(str(e).split())[:200]}): save one with"
            " torch.save(model.state_dict(), path)."
        ) from e
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise CheckpointError(
            f"{path} holds no state dict of tensors: save one with torch.save(model.state_dict(), path)."
        )
    return {name: _lazy(tensor) for name, tensor in state.items()}


def _lazy(tensor: torch.Tensor) -> LazyTensor:
    return LazyTensor(np.dtype(np.float32), tuple(tensor.shape), lambda: tensor.detach().float().numpy())
