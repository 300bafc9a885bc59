from __future__ import annotations

from dataclasses import replace

from storm_edge.export.build.tensorrt.memory import builder_limits
from storm_edge.runtime.machine.probe import Machine

MACHINE = Machine((), None, None, None, None, False, None, None, None, None)
GIB = 2**30


def test_a_shared_memory_is_left_room_and_a_gpus_own_is_not_limited() -> None:
    free = replace(MACHINE, available=12.0)
    assert builder_limits(free, True, None) == (3 * GIB, 12 * GIB)
    assert builder_limits(free, True, 1.5) == (GIB * 3 // 2, 12 * GIB)
    assert builder_limits(free, False, None) == (None, None)
    assert builder_limits(free, False, 2) == (2 * GIB, None)
    assert builder_limits(replace(MACHINE, available=None), True, None) == (None, None)
