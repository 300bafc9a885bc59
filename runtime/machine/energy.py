"""The energy that this machine takes: NVML's counter of a GPU, or a Jetson's rails by tegrastats.

Written from their documentation; no machine of ours has run it yet. NVML counts the board since the driver was loaded,
in millijoules, from Volta on. tegrastats prints every rail's power now and then.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import time
from contextlib import suppress
from typing import Protocol

from storm_edge.runtime.machine.probe import Machine

INTERVAL = 100  # milliseconds between tegrastats' lines
_WHOLE = ("VDD_IN", "VIN")  # the rails that feed all others, where a board measures one


class Meter(Protocol):
    """Adds up energy from when it was opened."""

    source: str

    def joules(self) -> float:
        """So far."""

    def close(self) -> None:
        """Stop measuring."""


def open_meter(machine: Machine) -> Meter | None:
    """What measures this machine's energy; None where nothing does."""
    if machine.tegrastats:
        with suppress(OSError):
            return Rails(subprocess.Popen(["tegrastats", "--interval", str(INTERVAL)], stdout=subprocess.PIPE))
    if machine.gpus:
        with suppress(OSError, AttributeError):
            return Counter(ctypes.CDLL("libnvidia-ml.so.1"))
    return None


class Counter:
    """The first GPU's counter; raises OSError where it has none, AttributeError for a library without the functions."""

    source = "the GPU's board, by NVML"

    def __init__(self, library: ctypes.CDLL) -> None:
        self._read, device = library.nvmlDeviceGetTotalEnergyConsumption, ctypes.c_void_p()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(0), ctypes.byref(device)):
            raise OSError("NVML does not answer")
        self._device, self._shutdown = device, library.nvmlShutdown
        self._begin = self._now()

    def _now(self) -> int:
        value = ctypes.c_ulonglong()
        if self._read(self._device, ctypes.byref(value)):
            raise OSError("this GPU counts no energy")
        return value.value

    def joules(self) -> float:
        """The counter's way since it was opened."""
        return (self._now() - self._begin) / 1000

    def close(self) -> None:
        """Leave NVML."""
        self._shutdown()


def parse_rails(line: str) -> float | None:
    """Watts in a line of tegrastats: of the rail that feeds all, else of all rails together; None where it has none.

    "VDD_GPU_SOC 1680mW/1702mW" is a rail's power now and on average.
    """
    rails = {m[1]: int(m[2]) / 1000 for m in re.finditer(r"\b(V\w+) (\d+)mW/\d+mW", line)}
    if not rails:
        return None
    return next((rails[name] for name in _WHOLE if name in rails), sum(rails.values()))


class Rails:
    """A running tegrastats. Its lines wait in the pipe until they are asked for: some 60 KiB, minutes of them."""

    source = "the board's rails, by tegrastats"

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._begun = process, time.monotonic()
        self._watts: list[float] = []
        self._rest = b""
        assert process.stdout is not None
        self._pipe = process.stdout
        os.set_blocking(self._pipe.fileno(), False)

    def joules(self) -> float:
        """Mean power so far times the seconds."""
        while piece := self._pipe.read():
            *lines, self._rest = (self._rest + piece).split(b"\n")
            found = (parse_rails(line.decode("ascii", "replace")) for line in lines)
            self._watts += [watts for watts in found if watts is not None]
        return sum(self._watts) / len(self._watts) * (time.monotonic() - self._begun) if self._watts else 0.0

    def close(self) -> None:
        """End tegrastats."""
        self._process.terminate()
        self._process.wait()
        self._pipe.close()
