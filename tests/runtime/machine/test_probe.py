"""Recorded samples of Jetsons and PCs; no test looks at the machine it runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from storm_edge.plugins.gpus import GPU_QUERY, Gpu, command_output, parse_board, parse_gpus
from storm_edge.runtime.machine.doctor import gpu_facts, target_facts
from storm_edge.runtime.machine.probe import (
    POWER_QUERY,
    Machine,
    jetpack_of,
    library_version,
    parse_l4t,
    parse_memory,
    parse_power_mode,
    probe,
)

ORIN_NANO_JETPACK_62 = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed"
    " Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n",
    "proc/meminfo": "MemTotal:        7802852 kB\nMemFree:          391172 kB\nMemAvailable:    5953536 kB\nSwapTotal:"
    "       3901424 kB\n",
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.10": "",
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": "",
    "usr/lib/aarch64-linux-gnu/libnvinfer_plugin.so.10.3.0": "",
    "usr/bin/tegrastats": "",
}
AGX_ORIN_JETPACK_72 = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "etc/nv_tegra_release": "# R39 (release), REVISION: 2.0, GCID: 45755727, BOARD: generic, EABI: aarch64, DATE: Mon"
    " Jun  1 09:28:48 PM UTC 2026\n# KERNEL_VARIANT: oot\n",
    "proc/meminfo": "MemTotal:       64349064 kB\nMemAvailable:   60164128 kB\nSwapTotal:             0 kB\n",
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.16.1": "",
}
PC = {"proc/meminfo": "MemTotal:       131072000 kB\nMemAvailable:   98304000 kB\nSwapTotal:        2097148 kB\n"}


def machine_of(tmp_path: Path, files: dict[str, str], commands: dict[tuple[str, ...], str] | None = None) -> Machine:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return probe(tmp_path, (commands or {}).get)


def test_a_jetson_of_jetpack_62_without_nvml_is_known_from_its_device_tree(tmp_path: Path) -> None:
    found = machine_of(tmp_path, ORIN_NANO_JETPACK_62, {POWER_QUERY: "NV Power Mode: MAXN_SUPER\n2\n"})
    assert found.gpus == (Gpu("Orin (integrated)", 87),)
    assert (found.l4t, found.jetpack, found.libnvinfer) == ("36.4.3", "6.2", "10.3.0")
    assert found.power_mode == "MAXN_SUPER (nvpmodel -m 2)"
    assert found.memory == pytest.approx(7.44, abs=0.01)
    assert found.targets == ("orin", "cuda", "cpu")
    facts = gpu_facts(found)
    assert facts["gpu 0"] == "Orin (integrated), SM 87, shares the processor's memory, driver version unknown"
    assert facts["jetson linux"] == "36.4.3 (JetPack 6.2)"
    assert facts["tegrastats"] == "found"
    assert target_facts(found)["orin"].endswith("(this machine)")


def test_a_jetson_of_jetpack_72_answers_nvidia_smi_without_its_memory(tmp_path: Path) -> None:
    found = machine_of(tmp_path, AGX_ORIN_JETPACK_72, {GPU_QUERY: "Orin (nvgpu), 8.7, 595.78, [N/A]\n"})
    assert found.gpus == (Gpu("Orin (nvgpu)", 87, "595.78"),)
    assert (found.jetpack, found.libnvinfer, found.power_mode, found.swap) == ("7.2", "10.16.1", None, 0)
    assert found.targets == ("orin", "cuda", "cpu")
    facts = gpu_facts(found)
    assert "sudo nvpmodel -q" in facts["power mode"]
    assert "missing" in facts["tegrastats"]


def test_a_pc_with_a_data_center_gpu(tmp_path: Path) -> None:
    found = machine_of(tmp_path, PC, {GPU_QUERY: "NVIDIA H200, 9.0, 570.86.15, 143771\n"})
    assert found.gpus == (Gpu("NVIDIA H200", 90, "570.86.15", 143771 / 1024),)
    assert (found.board, found.l4t, found.power_mode) == (None, None, None)
    assert found.targets == ("h200", "cuda", "cpu")
    assert set(gpu_facts(found)) == {"gpu 0"}


def test_a_machine_without_a_gpu_is_a_cpu(tmp_path: Path) -> None:
    found = machine_of(tmp_path, PC)
    assert found.gpus == ()
    assert found.targets == ("cpu",)
    assert "none found" in gpu_facts(found)["gpu"]


def test_an_empty_file_system_is_no_error(tmp_path: Path) -> None:
    assert machine_of(tmp_path, {}).memory is None


@pytest.mark.parametrize(
    ("name", "sm", "targets"),
    [
        ("NVIDIA A100-SXM4-80GB", 80, ("a100", "cuda")),
        ("NVIDIA L4", 89, ("l4", "cuda")),
        ("NVIDIA L40S", 89, ("l40s", "cuda")),
        ("NVIDIA H100 80GB HBM3", 90, ("h100", "cuda")),
        ("NVIDIA B200", 100, ("b200", "cuda")),
        ("NVIDIA GeForce RTX 4090", 89, ("rtx", "cuda")),
        ("NVIDIA Thor", 110, ("thor", "cuda")),
        ("NVIDIA A10G", 86, ("cuda",)),
        ("Tesla V100-SXM2-32GB", 70, ("cuda",)),
    ],
)
def test_products_of_one_compute_capability_are_told_apart_by_name(
    name: str, sm: int, targets: tuple[str, ...]
) -> None:
    gpu = Gpu(name, sm)
    assert Machine((gpu,), *[None] * 4, False, *[None] * 4).targets == (*targets, "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [("36.4.0", "6.1"), ("36.4.4", "6.2.1"), ("36.4.9", "6.1"), ("38.2.1", "7.0"), ("39.2.2", "7.2.2"), ("40.1", None)],
)
def test_jetson_linux_maps_to_jetpack(l4t: str, jetpack: str | None) -> None:
    assert jetpack_of(l4t) == jetpack


def test_damaged_or_foreign_answers_are_absent_facts() -> None:
    assert parse_gpus("No devices were found\n") == ()
    assert parse_gpus("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n") == ()
    assert parse_board("Raspberry Pi 5 Model B Rev 1.0\0") is None
    assert parse_l4t("") is None
    assert parse_power_mode("NVPM ERROR: Error opening /sys\n") is None
    assert parse_power_mode("NV Power Mode: 15W\n0\n") == "15W (nvpmodel -m 0)"
    assert parse_memory("garbage") == {}
    assert library_version(["libnvinfer.so", "libnvinfer_lean.so.10.3.0"]) is None
    assert library_version(["libnvinfer.so.10.3.0", "libnvinfer.so.10.16.1"]) == "10.16.1"
    assert command_output(("no-such-command-here",)) is None
    assert command_output(("false",)) is None
