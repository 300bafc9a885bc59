"""What a folder holds of a checkpoint of any family, for people; it needs no torch to be read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from storm_edge.export.checkpoint.summary import amount, attempt, facts, summarize_storm, tokenizer_ids
from storm_edge.export.families.family import Family, Found
from storm_edge.export.families.recognise import family_of
from storm_edge.export.families.storm.family import STORM
from storm_edge.runtime.errors import CheckpointError


def summarize(root: Path) -> dict[str, Any]:
    """Family, configuration, parameters and types of every part, tokenizer, and what is missing; ready for JSON.

    Reads headers only. Raises CheckpointError for a folder without a config.json of a known family.
    """
    family, found = family_of(root)
    of_family = summarize_storm(root) if family is STORM else _summarize(family, root, found)
    return {"checkpoint": str(root), "family": family.words, **of_family}


def _summarize(family: Family, root: Path, found: Found) -> dict[str, Any]:
    try:
        checkpoint = family.open(root, found)
    except CheckpointError as e:
        return {"missing": [str(e)]}
    missing: list[str] = []
    of_parts = {"vision": checkpoint.vision, "temporal": checkpoint.temporal, "language": checkpoint.llm}
    parts = {name: attempt(missing, partial(amount, weights)) for name, weights in of_parts.items()}
    tokenizer = attempt(missing, lambda: tokenizer_ids(checkpoint.tokenizer, checkpoint.config))
    return facts(checkpoint.config, parts, tokenizer, missing)
