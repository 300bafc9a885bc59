"""The grid on which every form of SelectiveScan is tested, and the float64 loop that it is tested against."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from storm_edge.plugins.selective_scan.op import SCHEMA

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One point of the grid: T, the sizes and the direction."""

    dtype: str
    batch: int
    length: int
    channels: int
    state: int
    reverse: bool

    def __str__(self) -> str:
        direction = "reverse" if self.reverse else "forward"
        return f"{self.dtype}-{self.batch}x{self.length}x{self.channels}x{self.state}-{direction}"


GRID = [
    Case(dtype, batch, length, channels, state, reverse)
    for dtype in ("float32", "float16", "bfloat16")
    for length in (1, 2, 3, 63, 64, 1000)
    for batch, channels, state in ((1, 7, 16), (2, 33, 4), (1, 66, 16))  # the last: what CUDA moves in vectors
    for reverse in (False, True)
]


@cache
def random_inputs(batch: int, length: int, channels: int, state: int, seed: int = 0) -> Arrays:
    """Inputs in Mamba's range: steps of 1e-3 to 0.1 remember hundreds of tokens, so that lost states show."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal
    return {
        "u": normal((batch, length, channels)),
        "delta": normal((batch, length, channels)),
        "A": -np.arange(1, state + 1) * rng.uniform(0.5, 1.5, (channels, state)),
        "B": normal((batch, length, state)),
        "C": normal((batch, length, state)),
        "D": normal(channels),
        "z": normal((batch, length, channels)),
        "delta_bias": rng.uniform(-7.0, -2.0, channels),
        "initial_state": normal((batch, channels, state)),
    }


def float64_loop(inputs: Arrays, reverse: bool) -> tuple[np.ndarray, np.ndarray]:
    """The definition, one token after the other, in float64."""
    u, delta, A, B, C, D, z, delta_bias, h = (inputs[value.name].astype(np.float64) for value in SCHEMA.inputs)
    biased = delta + delta_bias
    step = np.where(biased > 20.0, biased, np.log1p(np.exp(np.minimum(biased, 20.0))))
    y = np.zeros_like(u)
    tokens = range(u.shape[1])
    for t in reversed(tokens) if reverse else tokens:
        decay = np.exp(step[:, t, :, None] * A)  # (batch, channels, state)
        h = decay * h + (step[:, t] * u[:, t])[:, :, None] * B[:, t, None, :]  # (batch, channels, state)
        y[:, t] = (h * C[:, t, None, :]).sum(axis=-1) + D * u[:, t]
    return y * z / (1.0 + np.exp(-z)), h


@pytest.fixture(params=GRID, ids=str)
def scan_case(request: pytest.FixtureRequest) -> Case:
    """Every point of the grid in turn."""
    case: Case = request.param
    return case


@pytest.fixture(scope="session")
def scan_inputs(representable: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """scan_inputs(batch, length, channels, state, dtype="float32"): random inputs by name."""

    def make(batch: int, length: int, channels: int, state: int, dtype: str = "float32") -> Arrays:
        return representable(SCHEMA, random_inputs(batch, length, channels, state), dtype)

    return make


@pytest.fixture(scope="session")
def scan_oracle() -> Callable[[Arrays, bool], tuple[np.ndarray, np.ndarray]]:
    """scan_oracle(inputs, reverse): y and the final state in float64."""
    return float64_loop


@pytest.fixture(scope="session")
def assert_scan_correct(scan_inputs: Callable[..., Arrays], assert_close: Callable[..., None]) -> Callable[..., None]:
    """assert_scan_correct(run, case): the form agrees with the float64 loop; its states are float32 whatever T is."""

    def check(run: Callable[..., tuple[np.ndarray, np.ndarray]], case: Case) -> None:
        inputs = scan_inputs(case.batch, case.length, case.channels, case.state, case.dtype)
        y, final_state = run(inputs, case.dtype, case.reverse)
        expected_y, expected_state = float64_loop(inputs, case.reverse)
        assert_close(y, expected_y, case.dtype)
        assert_close(final_state, expected_state, "float32")

    return check


@pytest.fixture(scope="session")
def assert_softplus_is_linear_above_20(scan_inputs: Callable[..., Arrays]) -> Callable[..., None]:
    """assert_softplus_is_linear_above_20(run): curved below 20, linear far above, where exp() overflows."""

    def check(run: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
        inputs = scan_inputs(1, 7, 3, 4)
        inputs["delta"][0] = np.float32([[6.0], [19.9], [20.1], [50.0], [100.0], [1000.0], [-1000.0]])
        inputs["A"][:] *= 1e-3  # so that a step of 1000 still leaves something of the state
        # Nothing but steps is added up, so that a relative error of theirs is one of the outputs.
        ones, zeros = ("u", "B", "C", "z"), ("D", "delta_bias", "initial_state")
        inputs.update({name: np.ones_like(inputs[name]) for name in ones})
        inputs.update({name: np.zeros_like(inputs[name]) for name in zeros})
        for got, expected in zip(run(inputs, "float32", False), float64_loop(inputs, False), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5)

    return check


@pytest.fixture(scope="session")
def assert_gate_keeps_its_precision(scan_inputs: Callable[..., Arrays]) -> Callable[..., None]:
    """assert_gate_keeps_its_precision(run): z * sigmoid(z) in relative terms, for z from -80 to 20."""

    def check(run: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
        inputs = scan_inputs(1, 1, 10_001, 1)
        inputs["z"][0, 0] = np.linspace(-80.0, 20.0, 10_001, dtype=np.float32)
        # Of the scan nothing is left, and D * u is 1: y is the gate.
        inputs.update({name: np.ones_like(inputs[name]) for name in ("u", "D")})
        inputs.update({name: np.zeros_like(inputs[name]) for name in ("B", "C", "initial_state")})
        y, _ = run(inputs, "float32", False)
        np.testing.assert_allclose(y, float64_loop(inputs, False)[0], rtol=6e-6)

    return check


@pytest.fixture(scope="session")
def assert_small_steps_keep_their_precision(scan_inputs: Callable[..., Arrays]) -> Callable[..., None]:
    """assert_small_steps_keep_their_precision(run): softplus in relative terms, from -80 to 20."""

    def check(run: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
        inputs = scan_inputs(1, 1, 10_001, 1)
        inputs["delta"][0, 0] = np.linspace(-80.0, 20.0, 10_001, dtype=np.float32)
        # The state starts from nothing and takes step * 1: it is the step.
        inputs.update({name: np.ones_like(inputs[name]) for name in ("u", "B")})
        inputs.update({name: np.zeros_like(inputs[name]) for name in ("delta_bias", "initial_state")})
        _, final_state = run(inputs, "float32", False)
        np.testing.assert_allclose(final_state, float64_loop(inputs, False)[1], rtol=6e-6)

    return check


@pytest.fixture(scope="session")
def assert_decays_are_within_the_stated_bound(scan_inputs: Callable[..., Arrays]) -> Callable[..., None]:
    """assert_decays_are_within_the_stated_bound(run): exp(step * A) down to exp(-87), as README.md bounds its error."""

    def check(run: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
        inputs = scan_inputs(1, 1, 100_000, 1)
        rng = np.random.default_rng(1)
        step = rng.uniform(20.5, 87.0, 100_000).astype(np.float32)  # softplus is linear there: it is what comes in
        A = (-rng.uniform(0.0, 87.0, 100_000) / step).astype(np.float32)
        inputs.update(delta=step[None, None], A=A[:, None], delta_bias=np.zeros_like(step))
        inputs.update(initial_state=np.ones_like(inputs["initial_state"]), B=np.zeros_like(inputs["B"]))
        _, final_state = run(inputs, "float32", False)
        exponent = step.astype(np.float64) * A  # exact
        expected = np.exp(exponent)
        error = np.abs(final_state[0, :, 0] - expected) / expected
        assert (error <= 2e-7 - 1.2e-7 * exponent).all(), error.max()

    return check
