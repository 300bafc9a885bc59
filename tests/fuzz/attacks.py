"""All attacks, by name."""

from __future__ import annotations

import hostile_entries  # noqa: F401 - enters its attacks, as the others do
import hostile_external  # noqa: F401
import hostile_graphs  # noqa: F401
import hostile_records  # noqa: F401
import hostile_text  # noqa: F401
from hostile import ATTACKS

__all__ = ["ATTACKS"]
