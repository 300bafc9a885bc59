"""Memory of this process, and what it was seen to take of a GPU."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def peak_memory_bytes() -> int:
    """The most memory this process has held: Linux's own mark, since rusage's is inherited from the parent process."""
    if (peak := _status("VmHWM")) is not None:
        return peak
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak_memory() -> bool:
    """Let `peak_memory_bytes` count from what this process holds now; False where the system does not let it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


_device_peak = 0


def saw_device_bytes(taken: int) -> None:
    """Remember how much memory a GPU has given since it was opened."""
    global _device_peak  # like the kernel's mark of the process's own memory, which is the process's too
    _device_peak = max(_device_peak, taken)


def peak_device_bytes() -> int:
    """The most memory that a GPU was seen to give while this process had it open; 0 without one."""
    return _device_peak


@contextmanager
def memory_limit(more: int) -> Iterator[None]:
    """Let this process take at most `more` bytes of memory in the block than it has now.

    What asks for more is refused as where memory is short: a MemoryError, or the library's own error. The system's
    limit stays where it is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    held = _status("VmData") or 0
    limits = [n for n in (held + more, soft, hard) if n != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def available_bytes() -> int:
    """Memory that a process could take now without swapping, as Linux estimates it."""
    return _kib("/proc/meminfo", "MemAvailable") or 0


def _status(key: str) -> int | None:
    """A size in /proc/self/status, in bytes."""
    return _kib("/proc/self/status", key)


def _kib(file: str, key: str) -> int | None:
    """The line of a key in a file of sizes in KiB, in bytes."""
    for line in Path(file).read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None
