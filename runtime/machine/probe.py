"""Which machine this is: GPU, Jetson release, power mode, TensorRT, memory.

Every probe is a function of the text a file or command gives, so that it is tested with recorded samples; `probe` reads
them. The GPUs themselves are asked for in plugins/gpus.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from storm_edge.plugins.gpus import Gpu as Gpu
from storm_edge.plugins.gpus import Run, command_output, find_board, find_gpus
from storm_edge.runtime.machine.targets import TARGETS

POWER_QUERY = ("nvpmodel", "-q")
LIBRARY_FOLDERS = ("usr/lib/aarch64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib", "usr/local/tensorrt/lib")

# Jetson Linux (L4T) -> JetPack, from the release notes of both; the longest prefix that matches counts.
_JETPACK = {
    "35.4": "5.1.2",
    "35.5": "5.1.3",
    "35.6": "5.1.4",
    "36.3": "6.0",
    "36.4": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5": "6.2.2",
    "36.5.2": "6.2.3",
    "38.2": "7.0",
    "38.4": "7.1",
    "39.2": "7.2",
    "39.2.1": "7.2.1",
    "39.2.2": "7.2.2",
}


@dataclass(frozen=True)
class Machine:
    """What was found; None is absent. `memory` and `swap` in GiB."""

    gpus: tuple[Gpu, ...]
    board: str | None
    l4t: str | None
    jetpack: str | None
    power_mode: str | None
    tegrastats: bool
    libnvinfer: str | None
    memory: float | None
    available: float | None
    swap: float | None

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets this machine is, the most specific first; "cpu" is always one."""
        found = [name for gpu in self.gpus for name in _gpu_targets(gpu)]
        return (*dict.fromkeys(found), "cpu")


def parse_l4t(release: str) -> str | None:
    """The Jetson Linux version in /etc/nv_tegra_release: "# R36 (release), REVISION: 4.3, ..." is 36.4.3."""
    match = re.search(r"R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", release)
    return f"{match[1]}.{match[2]}" if match else None


def jetpack_of(l4t: str) -> str | None:
    """The JetPack release of a Jetson Linux version; None for versions this table does not know."""
    parts = l4t.split(".")
    for length in range(len(parts), 1, -1):
        found = _JETPACK.get(".".join(parts[:length]))
        if found:
            return found
    return None


def parse_power_mode(query: str) -> str | None:
    """The mode in the output of `nvpmodel -q`: a line with its name, then a line with its number."""
    name = re.search(r"NV Power Mode: *(\S+)", query)
    number = re.search(r"^\s*(\d+)\s*$", query, re.MULTILINE)
    return f"{name[1]} (nvpmodel -m {number[1]})" if name and number else name[1] if name else None


def parse_memory(meminfo: str) -> dict[str, float]:
    """/proc/meminfo as GiB by name."""
    return {m[1]: int(m[2]) / 2**20 for m in re.finditer(r"^(\w+): +(\d+) kB", meminfo, re.MULTILINE)}


def library_version(files: list[str]) -> str | None:
    """TensorRT's version from the names of its libraries: libnvinfer.so.10.3.0 says more than libnvinfer.so.10."""
    versions = [m[1] for f in files if (m := re.fullmatch(r"libnvinfer\.so\.([\d.]+)", f))]
    return max(versions, key=lambda v: [int(x) for x in v.split(".")], default=None)


def probe(root: Path = Path("/"), run: Run = command_output) -> Machine:
    """Look at the machine whose file system is at `root` and whose commands `run` executes."""
    board = find_board(root)
    l4t = parse_l4t(_text(root / "etc/nv_tegra_release"))
    memory = parse_memory(_text(root / "proc/meminfo"))
    libraries = [p.name for folder in LIBRARY_FOLDERS for p in (root / folder).glob("libnvinfer.so.*")]
    return Machine(
        gpus=find_gpus(root, run),
        board=board,
        l4t=l4t,
        jetpack=jetpack_of(l4t) if l4t else None,
        power_mode=parse_power_mode(run(POWER_QUERY) or "") if board or l4t else None,
        tegrastats=(root / "usr/bin/tegrastats").exists(),
        libnvinfer=library_version(libraries),
        memory=memory.get("MemTotal"),
        available=memory.get("MemAvailable"),
        swap=memory.get("SwapTotal"),
    )


def _gpu_targets(gpu: Gpu) -> list[str]:
    words = set(re.split(r"[\s\-_]+", gpu.name.lower()))
    found = [name for name, t in TARGETS.items() if t.sm is not None and t.sm == gpu.sm]
    if len(found) > 1 or gpu.sm not in (87, 110):  # several products share an SM: the name decides
        found = [name for name in found if name in words]
    if gpu.sm in TARGETS["rtx"].sms and {"geforce", "rtx"} & words:
        found.append("rtx")
    return [*found, "cuda"]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
