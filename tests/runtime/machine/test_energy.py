from __future__ import annotations

import ctypes
import subprocess
import time
from types import SimpleNamespace
from typing import Any

import pytest

from storm_edge.runtime.machine import energy
from storm_edge.runtime.machine.probe import Gpu, probe

# The form that Jetson Linux' documentation of tegrastats gives its lines.
AGX = (
    "11-29-2026 12:00:00 RAM 6789/30697MB (lfb 1234x4MB) CPU [3%@729,0%@729] GR3D_FREQ 0% cpu@45.2C"
    " VDD_GPU_SOC 2400mW/2400mW VDD_CPU_CV 400mW/420mW VIN_SYS_5V0 3200mW/3200mW"
)
NX = "RAM 2000/15000MB GR3D_FREQ 99% VDD_IN 9876mW/8000mW VDD_CPU_GPU_CV 4000mW/3900mW VDD_SOC 2000mW/2000mW"


@pytest.mark.parametrize(("line", "watts"), [(AGX, 6.0), (NX, 9.876), ("RAM 1/2MB cpu@45C", None), ("", None)])
def test_the_power_of_a_board_is_that_of_the_rail_that_feeds_all_or_of_all_rails(line: str, watts: float) -> None:
    assert energy.parse_rails(line) == (None if watts is None else pytest.approx(watts))


def nvml(*readings: int, fails: str = "") -> Any:
    """A library whose counter is at each of `readings`, in millijoules, one after the other."""
    left = list(readings)

    def read(device: ctypes.c_void_p, value: Any) -> int:
        value._obj.value = left.pop(0)
        return int(fails == "read")

    return SimpleNamespace(
        nvmlInit_v2=lambda: int(fails == "init"),
        nvmlDeviceGetHandleByIndex_v2=lambda index, device: 0,
        nvmlDeviceGetTotalEnergyConsumption=read,
        nvmlShutdown=lambda: 0,
    )


def test_nvml_counts_from_when_it_was_opened() -> None:
    assert energy.Counter(nvml(5_000, 7_500)).joules() == 2.5


@pytest.mark.parametrize("fails", ["init", "read"])
def test_a_gpu_without_a_counter_has_no_meter(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy.ctypes, "CDLL", lambda name: nvml(1, fails=fails))
    machine = SimpleNamespace(tegrastats=False, gpus=(Gpu("a GPU", 70),))
    assert energy.open_meter(machine) is None  # type: ignore[arg-type]


def test_a_machine_without_gpu_has_no_meter() -> None:
    if not probe().gpus:
        assert energy.open_meter(probe()) is None


def test_tegrastats_power_is_averaged_over_the_time() -> None:
    lines = "VDD_IN 1000mW/1000mW\nVDD_IN 3000mW/2000mW\nVDD_IN 90"
    process = subprocess.Popen(["sh", "-c", f"printf '{lines}'; sleep 60"], stdout=subprocess.PIPE)
    meter = energy.Rails(process)
    begun = time.monotonic()
    while not meter.joules() and time.monotonic() < begun + 30:
        time.sleep(0.05)
    before = time.monotonic()
    found = meter.joules()
    assert found == pytest.approx(2.0 * (before - meter._begun), rel=0.05, abs=0.02)
    meter.close()
    assert process.returncode is not None
