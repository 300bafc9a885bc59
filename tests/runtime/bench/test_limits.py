from __future__ import annotations

import numpy as np
import pytest

from storm_edge.runtime.bench import limits, measure_limits
from storm_edge.runtime.sessions.device import HOST


def test_this_machine_multiplies_copies_and_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.0)
    monkeypatch.setattr(limits, "SIDE", 256)
    monkeypatch.setattr(limits, "COPIED", 1 << 20)
    found = measure_limits(HOST, threads=1)
    assert set(found.flops_per_second) == {"fp32", "fp16", "bf16", "int8", "int4"}
    assert min(*found.flops_per_second.values(), found.bytes_per_second, found.exponentials_per_second) > 1e6


@pytest.mark.parametrize(("operator", "kinds"), [("MatMul", (1, 1, 1)), ("MatMulInteger", (2, 3, 6))])
def test_the_measured_product_is_a_product(
    operator: str, kinds: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SIDE", 16)
    rng = np.random.default_rng(0)
    types = {1: np.float32, 2: np.uint8, 3: np.int8}
    a, b = (rng.integers(0, 9, (16, 16)).astype(types[kind]) for kind in kinds[:2])
    (c,) = limits._product(operator, kinds, 1).run(None, {"a": a, "b": b})
    np.testing.assert_array_equal(c, a.astype(int) @ b.astype(int))


def test_a_rate_is_that_of_the_fastest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 3.0, 3.0, 4.0, 4.0, 6.0, 6.0, 9.0, 9.0, 9.0])
    monkeypatch.setattr(limits.time, "perf_counter", lambda: next(clock))
    assert limits.best_rate(lambda: None, 10.0) == 10.0
