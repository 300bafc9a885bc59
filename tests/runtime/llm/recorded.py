"""Calls against a recorded description of a package: whether the package would take them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

_WHOLE = {"int": (-(2**63), 2**63), "int32": (-(2**31), 2**31), "uint64": (0, 2**64)}


def conforms(value: Any, kind: str) -> bool:
    """Whether a value is of a recorded type."""
    if kind.endswith("?"):
        return value is None or conforms(value, kind[:-1])
    if "|" in kind:
        return any(conforms(value, part) for part in kind.split("|"))
    if kind.startswith("list["):
        return isinstance(value, list) and all(conforms(x, kind[5:-1]) for x in value)
    if kind in _WHOLE:
        low, past = _WHOLE[kind]
        return isinstance(value, int) and not isinstance(value, bool) and low <= value < past
    if kind == "float":
        return isinstance(value, float | int) and not isinstance(value, bool)
    plain = {"bool": bool, "str": str, "path": str | Path, "timedelta": timedelta, "Tensor": torch.Tensor}
    if kind in plain:
        return isinstance(value, plain[kind])
    return getattr(value, "kind", None) == kind


def bound(what: str, parameters: dict[str, str], args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name; TypeError for one that the package has not, or of another type."""
    by_place = [name for name, kind in parameters.items() if not kind.endswith("*")]
    if len(args) > len(by_place):
        raise TypeError(f"{what} takes {len(by_place)} arguments by place")
    found = dict(zip(by_place, args, strict=False))
    if twice := set(found) & set(given):
        raise TypeError(f"{what} got {twice} twice")
    found |= given
    for name, value in found.items():
        if name not in parameters:
            raise TypeError(f"{what} has no parameter {name}")
        if not conforms(value, parameters[name].rstrip("!*")):
            raise TypeError(f"{what}: {name} is no {parameters[name]}")
    if missing := [name for name, kind in parameters.items() if kind.endswith("!") and name not in found]:
        raise TypeError(f"{what} lacks {missing}")
    return found
