"""TensorRT's versions: what each can, as far as preparing a graph for it depends on that."""

from __future__ import annotations

from collections.abc import Collection

from storm_edge.runtime.errors import UsageError

Version = tuple[int, int]
FIRST_FUNCTIONS: Version = (10, 7)  # a registered plugin is preferred to a function body of its name
FIRST_ATTENTION: Version = (10, 14)  # the parser's Attention importer
FIRST_DECODER: Version = (10, 15)  # TensorScatter, RotaryEmbedding, RMSNormalization
NEWEST = "10.16"  # prepared for where neither the machine nor the options say otherwise
RTX_AS = "10.15"  # TensorRT for RTX has versions of its own; its parser knows what 10.15's does


def parse_version(text: str) -> Version:
    """ "10.3.0.26" -> (10, 3); raises UsageError for what is no version."""
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        raise UsageError(f"--tensorrt: {text!r} is no version: give one like 10.3 or 10.16.")
    return int(parts[0]), int(parts[1])


def abilities(version: Version, stages: Collection[str]) -> list[bool]:
    """What tells two versions apart in preparing the graphs of `stages`: equal abilities, equal graphs."""
    firsts = (FIRST_FUNCTIONS, FIRST_ATTENTION, *((FIRST_DECODER,) if "decoder" in stages else ()))
    return [version >= first for first in firsts]
