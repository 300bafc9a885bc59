"""How an operator of this package describes itself, and the checks every form of it shares (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FLOATING = ("float32", "float16", "bfloat16")
# Of every operator: run backwards (0 or 1), and the two by which TensorRT finds the plugin.
ATTRIBUTES = ("reverse", "plugin_version", "plugin_namespace")


@dataclass(frozen=True)
class Value:
    """One input or output: its name, its type ("T" or a fixed one) and its axes ("length", or "width-1")."""

    name: str
    type: str
    axes: tuple[str, ...]

    def describe(self) -> str:
        """`u [batch, length, channels]`, as error messages name it."""
        return f"{self.name} [{', '.join(self.axes)}]"


@dataclass(frozen=True)
class Schema:
    """An operator's name, its inputs and outputs in the order of its binary interface, and what they must satisfy.

    T, the type that may vary, is one of `FLOATING` and the same for all values that have it. An axis is at least 1
    long, or what `minimum` says.
    """

    domain: str
    name: str
    version: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    minimum: Mapping[str, int]

    @property
    def qualified_name(self) -> str:
        """`storm::SelectiveScan`."""
        return f"{self.domain}::{self.name}"

    def attributes(self, reverse: bool) -> dict[str, int | str]:
        """The attributes a node of this operator carries."""
        return dict(zip(ATTRIBUTES, (int(reverse), str(self.version), self.domain), strict=True))

    def check_shapes(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Return the size of every axis; raise ValueError naming the input, what was expected and what came."""
        sizes: dict[str, int] = {}
        for value in self.inputs:
            shape = tuple(shapes[value.name])
            must = f"{self.qualified_name}: {value.describe()} must have"
            if len(shape) != len(value.axes):
                raise ValueError(f"{must} {len(value.axes)} axes, got shape {list(shape)}")
            for axis, size in zip(value.axes, shape, strict=True):
                name, _, less = axis.partition("-")
                full = size + int(less or 0)
                if full != sizes.setdefault(name, full):
                    expected = ", ".join(_expected(a, sizes) for a in value.axes)
                    raise ValueError(f"{must} shape [{expected}], got {list(shape)}")
                least = self.minimum.get(name, 1)
                if full < least:
                    raise ValueError(f"{must} {name} of at least {least}, got shape {list(shape)}")
        return sizes

    def check_types(self, types: Mapping[str, str]) -> str:
        """Return the name of T; raise TypeError naming the input, what was expected and what came."""
        varying = ""
        for value in self.inputs:
            got = types[value.name]
            if value.type != "T":
                if got != value.type:
                    raise TypeError(f"{self.qualified_name}: {value.name} must be {value.type}, got {got}")
            elif varying == "":
                if got not in FLOATING:
                    raise TypeError(
                        f"{self.qualified_name}: {value.name} must be one of {', '.join(FLOATING)}, got {got}"
                    )
                varying = got
            elif got != varying:
                raise TypeError(
                    f"{self.qualified_name}: {value.name} must be {varying} like {self.inputs[0].name}, got {got}"
                )
        return varying


def _expected(axis: str, sizes: Mapping[str, int]) -> str:
    name, _, less = axis.partition("-")
    return str(sizes[name] - int(less or 0)) if name in sizes else axis
