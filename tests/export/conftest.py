from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the block in numpy beside the tests


@pytest.fixture(scope="session")
def rtx() -> None:
    """A test that asks for it is skipped where TensorRT for RTX is not installed."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("TensorRT for RTX is not installed: pip install .[rtx]")
