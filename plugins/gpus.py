"""Which GPUs this machine has. The standard library alone, so that the build of the operators asks here too.

Every question is a function of the text a file or command gives, so that it is tested with recorded samples. On a
Jetson the GPU is known from the device tree where nvidia-smi is missing or has no NVML to ask.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

GPU_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version,memory.total", "--format=csv,noheader,nounits")
Run = Callable[[tuple[str, ...]], "str | None"]
_BOARDS = {"orin": 87, "thor": 110, "xavier": 72}  # a word of the device tree's model -> SM


@dataclass(frozen=True)
class Gpu:
    """A CUDA GPU. `sm` is its compute capability x 10; `memory` in GiB, None where it shares the processor's."""

    name: str
    sm: int | None
    driver: str | None = None
    memory: float | None = None


def parse_gpus(query: str) -> tuple[Gpu, ...]:
    """GPUs from the output of GPU_QUERY; a Jetson's driver answers [N/A] for what it does not know."""
    gpus = []
    for line in query.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 4 or not re.fullmatch(r"\d+\.\d", fields[1]):
            continue  # a warning, or "No devices were found"
        name, capability, driver, memory = fields
        gib = float(memory) / 1024 if re.fullmatch(r"[\d.]+", memory) else None
        gpus.append(Gpu(name, int(capability.replace(".", "")), driver if driver[:1].isdigit() else None, gib))
    return tuple(gpus)


def parse_board(model: str) -> str | None:
    """The board of /proc/device-tree/model where it is an NVIDIA one; the file ends with a NUL."""
    name = model.replace("\0", "").strip()
    return name if name.startswith("NVIDIA") else None


def board_gpu(board: str) -> Gpu | None:
    """The integrated GPU of a Jetson board, from the board's name alone."""
    words = board.lower().split()
    return next((Gpu(f"{word.title()} (integrated)", sm) for word, sm in _BOARDS.items() if word in words), None)


def command_output(command: tuple[str, ...]) -> str | None:
    """What a command prints on stdout; None where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def find_board(root: Path = Path("/")) -> str | None:
    """The Jetson board whose file system is at `root`; None on any other machine."""
    try:
        return parse_board((root / "proc/device-tree/model").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def find_gpus(root: Path = Path("/"), run: Run = command_output) -> tuple[Gpu, ...]:
    """The GPUs of the machine whose file system is at `root` and whose commands `run` executes."""
    found, board = parse_gpus(run(GPU_QUERY) or ""), find_board(root)
    integrated = board_gpu(board) if board else None
    return found or ((integrated,) if integrated else ())
