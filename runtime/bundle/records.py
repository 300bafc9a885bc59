"""Records: the JSON files that describe a bundle, its calibrations and its engines; how they are read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from storm_edge.runtime.bundle.door import RECORD_BYTES, read_text
from storm_edge.runtime.config.schema import DType
from storm_edge.runtime.errors import BundleError, StormError


class Record(BaseModel):
    """What a JSON file of ours says: no field too many, and none changes. What no command reads costs it nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Difference(Record):
    """How far one tensor is from another: cosine, distance of the norms' ratio from 1, largest error over largest."""

    cosine: float
    norm_ratio: float
    error: float


class RoundingPrice(Record):
    """What the rounded weights give beside the checkpoint's own, both computed in fp32: the worst reference clip.

    `tokens` is the share of greedy tokens that both choose, given the same tokens before.
    """

    visual_tokens: Difference
    logits: Difference
    tokens: float


class ReferenceSpec(Record):
    """Which weights the reference was made of, and the price of rounding them; None where nothing was rounded."""

    weights: DType
    rounding: RoundingPrice | None


def read_record(
    root: Path, name: str, what: str, error: type[StormError] = BundleError, limit: int = RECORD_BYTES
) -> dict[str, Any]:
    """Decode a JSON object of ours in the bundle at `root`; raises `error` that names `what` where it is damaged."""
    path = root / name
    try:
        data = json.loads(read_text(root, name, limit))
    except OSError as e:
        raise error(f"{path} cannot be read ({e.strerror}): is this {what}?") from e
    except (ValueError, RecursionError) as e:
        raise error(f"{path} is damaged, it is no valid JSON: make {what} again.") from e
    if not isinstance(data, dict):
        raise error(f"{path} is damaged, it holds no JSON object: make {what} again.")
    return data


def said(error: ValidationError, most: int = 5) -> str:
    """What pydantic found wrong, in one short line: the fields and what is wrong with each, never their values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(str(part)[:60] for part in x['loc'][:6])}: {x['msg'][:120]}" for x in found[:most]]
    return "; ".join(lines) + (f"; and {len(found) - most} more" if len(found) > most else "")


def to_json(record: BaseModel) -> str:
    """The one way our records are written: sorted keys, two spaces, a final newline."""
    return json.dumps(record.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
