"""BIMBA's selector against a float64 block in numpy, and its order against torch.linspace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bimba_block import bimba, selector_config

from storm_edge.export.network.selector import interleaving, query_places
from storm_edge.export.network.temporal import TemporalEncoder
from storm_edge.runtime.config.schema import TemporalConfig


@pytest.mark.parametrize("per_frame", [(729, 196), (25, 9), (729, 169)])
@pytest.mark.parametrize("frames", [1, 2, 7, 32, 64, 128])
def test_queries_stand_where_linspace_puts_them(frames: int, per_frame: tuple[int, int]) -> None:
    tokens, queries = frames * per_frame[0], frames * per_frame[1]
    places = torch.linspace(0, tokens + queries - 1, queries + 1, dtype=torch.int64)[1:]
    assert torch.equal(query_places(tokens, queries), places)
    is_query = torch.zeros(tokens + queries, dtype=torch.bool)
    is_query[places] = True
    expected = torch.empty(tokens + queries, dtype=torch.long)
    expected[is_query] = tokens + torch.arange(queries)
    expected[~is_query] = torch.arange(tokens)
    assert torch.equal(interleaving(tokens, queries), expected)


def test_of_few_lengths_a_query_stands_a_place_later_than_floating_point_puts_it() -> None:
    differing = {}
    for frames in range(1, 129):
        tokens, queries = frames * 729, frames * 196
        floating = torch.linspace(0, tokens + queries - 1, queries + 1, dtype=torch.int64)[1:]
        later = query_places(tokens, queries) - floating
        assert set(later.tolist()) <= {0, 1}
        if later.any():
            differing[frames] = int(later.sum())
    # Where the exact place is a whole number, and a product of doubles falls just below it.
    assert differing == {13: 1, 61: 1, 78: 1, 97: 1, 121: 1}


@torch.no_grad()
def test_the_selector_is_the_float64_block() -> None:
    torch.manual_seed(0)
    encoder = TemporalEncoder(selector_config())
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    tokens = torch.randn(1, 3, 25, 8)
    state = {n: p.detach().numpy().astype(np.float64) for n, p in encoder.layers[0].named_parameters()}
    expected = bimba(tokens[0].numpy().astype(np.float64), 5, state)
    ours = encoder(tokens)
    assert ours.shape == (1, 3, 9, 8)
    np.testing.assert_allclose(ours[0].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_selector_has_one_layer() -> None:
    with pytest.raises(ValueError, match="has one layer"):
        TemporalConfig(num_layers=2, queries=True)
