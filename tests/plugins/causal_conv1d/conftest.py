"""The grid on which every form of CausalConv1d is tested, and the float64 loop that it is tested against."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from storm_edge.plugins.causal_conv1d.op import SCHEMA

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One point of the grid: T, the sizes and the direction."""

    dtype: str
    batch: int
    length: int
    channels: int
    width: int
    reverse: bool

    def __str__(self) -> str:
        direction = "reverse" if self.reverse else "forward"
        return f"{self.dtype}-{self.batch}x{self.length}x{self.channels}-width{self.width}-{direction}"


GRID = [
    Case(dtype, batch, length, channels, width, reverse)
    for dtype in ("float32", "float16", "bfloat16")
    for length in (1, 2, 3, 63, 64, 1000)
    for batch, channels, width in ((1, 7, 4), (2, 33, 4), (1, 5, 2), (1, 66, 4))  # the last: what CUDA moves in pairs
    for reverse in (False, True)
]


@cache
def random_inputs(batch: int, length: int, channels: int, width: int, seed: int = 0) -> Arrays:
    """Random inputs with a state that is not zero."""
    normal = np.random.default_rng(seed).standard_normal
    return {
        "x": normal((batch, length, channels)),
        "weight": normal((channels, width)),
        "bias": normal(channels),
        "initial_state": normal((batch, width - 1, channels)),
    }


def float64_loop(inputs: Arrays, reverse: bool) -> tuple[np.ndarray, np.ndarray]:
    """The definition, one token after the other, in float64: `window` holds the token and those seen before it."""
    x, weight, bias, state = (inputs[value.name].astype(np.float64) for value in SCHEMA.inputs)
    seen = list(np.moveaxis(state, 1, 0))  # width-1 arrays of (batch, channels)
    y = np.zeros_like(x)
    tokens = range(x.shape[1])
    for t in reversed(tokens) if reverse else tokens:
        # In token order; the last column of the weight is the token's own, and backwards the token comes first.
        window = [x[:, t], *seen] if reverse else [*seen, x[:, t]]
        columns = range(weight.shape[1])[::-1] if reverse else range(weight.shape[1])
        y[:, t] = bias + sum(weight[:, column] * token for column, token in zip(columns, window, strict=True))
        seen = window[:-1] if reverse else window[1:]
    return y / (1.0 + np.exp(-y)), np.stack(seen, axis=1)


@pytest.fixture(params=GRID, ids=str)
def conv_case(request: pytest.FixtureRequest) -> Case:
    """Every point of the grid in turn."""
    case: Case = request.param
    return case


@pytest.fixture(scope="session")
def conv_inputs(representable: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """conv_inputs(batch, length, channels, width, dtype="float32"): random inputs by name."""

    def make(batch: int, length: int, channels: int, width: int, dtype: str = "float32") -> Arrays:
        return representable(SCHEMA, random_inputs(batch, length, channels, width), dtype)

    return make


@pytest.fixture(scope="session")
def conv_oracle() -> Callable[[Arrays, bool], tuple[np.ndarray, np.ndarray]]:
    """conv_oracle(inputs, reverse): y and the final state in float64."""
    return float64_loop


@pytest.fixture(scope="session")
def assert_conv_correct(conv_inputs: Callable[..., Arrays], assert_close: Callable[..., None]) -> Callable[..., None]:
    """assert_conv_correct(run, case): the form agrees with the float64 loop; its final state is a copy of inputs."""

    def check(run: Callable[..., tuple[np.ndarray, np.ndarray]], case: Case) -> None:
        inputs = conv_inputs(case.batch, case.length, case.channels, case.width, case.dtype)
        y, final_state = run(inputs, case.dtype, case.reverse)
        expected_y, expected_state = float64_loop(inputs, case.reverse)
        assert_close(y, expected_y, case.dtype)
        np.testing.assert_array_equal(final_state, expected_state)

    return check
