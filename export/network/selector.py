"""A selector's order of tokens: queries spread evenly among those of a clip (BIMBA, arXiv 2503.09590, section 3.2).

Query i stands at place linspace(0, tokens + queries - 1, queries + 1)[i + 1], rounded down; tokens fill the other
places. Every place is computed from its number alone, in whole numbers, so that a graph does it for any length.
"""

from __future__ import annotations

import torch
from torch import Tensor


def query_places(tokens: int, queries: int) -> Tensor:
    """Where the queries stand, int64 (queries,)."""
    return (torch.arange(queries) + 1) * (tokens + queries - 1) // queries


def interleaving(tokens: int, queries: int) -> Tensor:
    """What stands at every place, int64 (tokens + queries,): a token by its number, query i as tokens + i."""
    place = torch.arange(tokens + queries)
    passed = _queries_before(place + 1, tokens, queries)  # up to this place, itself included
    is_query = passed > _queries_before(place, tokens, queries)
    return torch.where(is_query, tokens + passed - 1, place - passed)


def _queries_before(place: Tensor, tokens: int, queries: int) -> Tensor:
    """How many queries stand before a place: those i with (i + 1) * last < place * queries."""
    last = tokens + queries - 1
    return ((place * queries + last - 1) // last - 1).clamp(min=0)
