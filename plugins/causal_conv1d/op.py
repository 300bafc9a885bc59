"""What `storm::CausalConv1d` takes and gives, for every form of it (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from storm_edge.plugins.op_schema import Schema, Value

DOMAIN = "storm"
NAME = "CausalConv1d"
VERSION = 1

_TOKENS = ("batch", "length", "channels")
_STATE = ("batch", "width-1", "channels")

SCHEMA = Schema(
    domain=DOMAIN,
    name=NAME,
    version=VERSION,
    inputs=(
        Value("x", "T", _TOKENS),
        Value("weight", "T", ("channels", "width")),
        Value("bias", "T", ("channels",)),
        Value("initial_state", "T", _STATE),
    ),
    outputs=(Value("y", "T", _TOKENS), Value("final_state", "T", _STATE)),
    minimum={"width": 2},
)
INPUTS = tuple(value.name for value in SCHEMA.inputs)
OUTPUTS = tuple(value.name for value in SCHEMA.outputs)


def check_shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Sizes of batch, length, channels and width from the shapes by input name; ValueError if they disagree."""
    return SCHEMA.check_shapes(shapes)


def check_types(types: Mapping[str, str]) -> str:
    """T's name ("float16") from the types by input name; TypeError if one is wrong."""
    return SCHEMA.check_types(types)
