"""Muon for matrices, AdamW for everything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, tuned for speed rather than exactness


def orthogonalized(stack: Tensor, steps: int = 5) -> Tensor:
    """Matrices (n, rows, columns) with all singular values near 1: a Newton-Schulz iteration.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """
    a, b, c = _COEFFICIENTS
    x = stack.mT if stack.shape[1] > stack.shape[2] else stack
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if stack.shape[1] > stack.shape[2] else x
    return result


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose step is orthogonalised; for matrices (rows, columns) that map features to features.

    Matrices of one shape are worked on together. A step changes a matrix by about `lr` times the root of its shape's
    aspect, whatever its gradient's size.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure, no loss
        """Take one step."""
        for group in self.param_groups:
            by_shape: defaultdict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[tuple(p.shape)].append(p)
            for (rows, columns), parameters in by_shape.items():
                directions = []
                for p in parameters:
                    assert p.grad is not None
                    momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    momentum.lerp_(p.grad, 1 - group["momentum"])
                    directions.append(p.grad.lerp(momentum, group["momentum"]))
                size = group["lr"] * max(1.0, rows / columns) ** 0.5
                for p, update in zip(parameters, orthogonalized(torch.stack(directions)), strict=True):
                    p.add_(update, alpha=-size)
