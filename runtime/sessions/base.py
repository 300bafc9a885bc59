"""What every way of running a graph offers, and what it says of where tensors live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from storm_edge.runtime.sessions.device import Device, Tensor


class Session(Protocol):
    """A loaded graph. Its outputs live in the memory of its device, and no later run changes them."""

    @property
    def device(self) -> Device:
        """Where outputs are, and where inputs are taken from without a copy."""

    @property
    def batch(self) -> int:
        """Frames that a vision graph is best given at once."""

    def run(self, **inputs: Tensor) -> Mapping[str, Tensor]:
        """Run once; keys are the graph's input and output names. Inputs are in host memory or on the device.

        Raises EngineError.
        """
