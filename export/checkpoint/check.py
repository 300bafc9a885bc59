"""Comparing a checkpoint's tensors with those the configuration asks for, all differences in one message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from storm_edge.runtime.errors import CheckpointError

# Buffers that transformers of some versions saved with the weights; they follow from the configuration.
BUFFERS = ("*rotary_emb.inv_freq", "*.position_ids")


def check_tensors(
    found: Mapping[str, Sequence[int]],
    expected: Mapping[str, Sequence[int]],
    where: str,
    ignored: Iterable[str] = (),
) -> None:
    """Raise one CheckpointError naming every missing, unexpected and misshapen tensor of `where`.

    `found` and `expected` map names to shapes; `ignored` are patterns of names that may be there and are not used, in
    addition to the usual buffers.
    """
    patterns = (*BUFFERS, *ignored)
    missing = [name for name in expected if name not in found]
    extra = [n for n in found if n not in expected and not any(fnmatchcase(n, pattern) for pattern in patterns)]
    misshapen = [
        f"{name} is {list(found[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    problems = [
        f"{label} {', '.join(names)}"
        for label, names in (("missing", missing), ("unexpected", extra), ("misshapen:", misshapen))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{where} does not match its configuration: {'; '.join(problems)}."
            " Correct config.json, or use the checkpoint it belongs to."
        )
