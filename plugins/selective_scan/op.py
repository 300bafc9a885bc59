"""What `storm::SelectiveScan` takes and gives, for every form of it (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from storm_edge.plugins.op_schema import Schema, Value

DOMAIN = "storm"
NAME = "SelectiveScan"
VERSION = 1

_TOKENS = ("batch", "length", "channels")
_MATRIX = ("batch", "length", "state")
_STATE = ("batch", "channels", "state")

SCHEMA = Schema(
    domain=DOMAIN,
    name=NAME,
    version=VERSION,
    inputs=(
        Value("u", "T", _TOKENS),
        Value("delta", "T", _TOKENS),
        Value("A", "float32", ("channels", "state")),
        Value("B", "T", _MATRIX),
        Value("C", "T", _MATRIX),
        Value("D", "float32", ("channels",)),
        Value("z", "T", _TOKENS),
        Value("delta_bias", "float32", ("channels",)),
        Value("initial_state", "float32", _STATE),
    ),
    outputs=(Value("y", "T", _TOKENS), Value("final_state", "float32", _STATE)),
    minimum={},
)
INPUTS = tuple(value.name for value in SCHEMA.inputs)
OUTPUTS = tuple(value.name for value in SCHEMA.outputs)


def check_shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Sizes of batch, length, channels and state from the shapes by input name; ValueError if they disagree."""
    return SCHEMA.check_shapes(shapes)


def check_types(types: Mapping[str, str]) -> str:
    """T's name ("float16") from the types by input name; TypeError if one is wrong."""
    return SCHEMA.check_types(types)
