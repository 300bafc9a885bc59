"""Several processes training one network: each works on clips of its own, and gradients are averaged once a step.

On a CPU that others use too, one process a core is much faster than one process with a thread a core: threads wait for
each other after every operation, processes once a step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.distributed as distributed
from torch import Tensor, nn


class Workers:
    """This process's place among `count` processes; alone, nothing is exchanged."""

    def __init__(self, rank: int, count: int, folder: Path):
        self.rank, self.count = rank, count
        if count > 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            meeting = f"file://{(folder / 'meeting').absolute()}"
            distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def average(self, values: Tensor) -> Tensor:
        """The mean over all processes; every one of them has to call it."""
        if self.count > 1:
            distributed.all_reduce(values)
            values /= self.count
        return values

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the mean gradient of `parameters`; where one has none, it counts as zero."""
        if self.count == 1:
            return
        held = list(parameters)
        for p in held:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        mean = self.average(torch.cat([p.grad.flatten() for p in held if p.grad is not None]))
        for p, part in zip(held, torch.split(mean, [p.numel() for p in held]), strict=True):
            p.grad = part.view_as(p)
