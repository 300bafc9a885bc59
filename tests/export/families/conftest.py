from __future__ import annotations

import sys
from pathlib import Path

import pytest

from storm_edge.export.families import sections

sys.path.insert(0, str(Path(__file__).parent))  # for the models beside the tests


@pytest.fixture
def small_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tower of the random model's size under the name that `save_as_authors` writes."""
    small = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "image_size": 70, "patch_size": 14}
    # The authors' code removes the last block, and its weights with it.
    monkeypatch.setitem(sections.TOWERS, "siglip-small", small | {"num_hidden_layers": 4})
