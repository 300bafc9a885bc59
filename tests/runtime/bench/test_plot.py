from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from storm_edge.runtime.bench import plot
from storm_edge.runtime.errors import UsageError


def report(scale: float) -> dict[str, Any]:
    def seconds(value: float) -> dict[str, float]:
        return {"median": scale * value}

    stages = {name: {"seconds": seconds(1.0)} for name in ("video decode", "vision", "temporal", "prefill")}
    counts = {"frames": 8, "tokens": 128, "visual_tokens": 32}
    return stages | counts | {"first_token_seconds": seconds(4.0), "total_seconds": seconds(5.0)}


def test_the_answer_is_what_follows_the_first_token() -> None:
    assert plot._seconds(report(2.0), "decode") == 2.0
    assert plot._seconds(report(2.0), "vision") == 2.0


@pytest.mark.parametrize("peers", [{}, {"PyTorch": [report(3.0), report(4.0)]}])
def test_a_picture_is_drawn(peers: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: run `make setup`")
    path = tmp_path / "bench.png"
    plot.draw([report(1.0), report(2.0)], "an engine on a machine", path, peers)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'storm-edge\[bench\]'"):
        plot.require_matplotlib()
