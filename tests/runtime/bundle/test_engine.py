from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from storm_edge.runtime.bundle.engine import CheckResult, EngineRecord, read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.records import to_json


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.25])
def test_a_record_is_valid_json_whatever_was_measured(value: float, bundle: Path) -> None:
    row = CheckResult(clip="clip0", stage="vision", metric="cosine", value=value, limit=0.9, passed=False)
    record = read_engine(Bundle.open(bundle), "cpu-fp32").model_copy(update={"verification": [row]})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    read = EngineRecord.model_validate(json.loads(to_json(record), parse_constant=refuse))
    assert repr(read.verification[0].value) == repr(value)
