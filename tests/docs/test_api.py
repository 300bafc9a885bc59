"""The examples of the documentation run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from storm_edge.runtime.config.schema import parse_config
from storm_edge.runtime.video.encode import encode_video

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_examples_of_the_api_run_one_after_the_other(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "BUNDLE").symlink_to(bundle, target_is_directory=True)
    (tmp_path / "frames").mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    encode_video(tmp_path / "video.mp4", pictures)
    for name in ("frame9.mp4", "frame10.mp4"):
        encode_video(tmp_path / "frames" / name, pictures[:1])
        (tmp_path / "frames" / name).rename(tmp_path / "frames" / name.replace("mp4", "png"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    examples = blocks("api.md", "python")
    assert len(examples) == 10
    for number, example in enumerate(examples):
        exec(compile(example, f"docs/api.md, example {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert printed.startswith("cpu-fp32\n")
    assert "there is no file holiday.mp4: check the path." in printed


def test_the_configuration_in_the_documentation_is_valid() -> None:
    (example,) = blocks("how-to/bring-your-own-checkpoint.md", "json")
    assert parse_config(json.loads(example), "the example").llm.vocab_size == 152064


@pytest.mark.parametrize("page", sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")))
def test_links_of_the_documentation_lead_to_files(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", (DOCS / page).read_text(encoding="utf-8")):
        assert "://" in target or (DOCS / page).parent.joinpath(target).exists(), target
