"""How much memory a builder may take."""

from __future__ import annotations

from storm_edge.runtime.machine.probe import Machine

_SCRATCH = 0.25  # share of what is free that a kernel may take as scratch where nothing is asked for


def builder_limits(machine: Machine, integrated: bool, workspace_gib: float | None) -> tuple[int | None, int | None]:
    """Bytes of a kernel's scratch memory, and of all that timing them takes; None leaves TensorRT's own limits.

    Where processor and GPU share one memory, TensorRT would allow scratch as large as all of it, and to tactics three
    quarters, whatever else lies there (NvInfer.h, MemoryPoolType): too much ends the process. TensorRT counts its own
    host memory towards the second limit there, so that is everything free and not a share of it.
    """
    workspace = None if workspace_gib is None else int(workspace_gib * 2**30)
    if not integrated or machine.available is None:
        return workspace, None
    free = int(machine.available * 2**30)
    return workspace or int(free * _SCRATCH), free
