import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from storm_edge.cli.eval import command
from storm_edge.runtime.video.encode import encode_video


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, obj={"quiet": True}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_demo_is_evaluated_by_type(bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    report = json.loads(_run(str(bundle), "--data", "demo", "-n", "10", "--frames", "8", "--json", "-o", str(log)))
    assert 0 <= report["accuracy"] <= 1
    assert report["questions"] == 10
    assert {"time", "control", "time/direction", "control/count"} <= set(report["types"])
    assert report["types"]["time"]["asked"] == 7
    assert report["logit_divergence"]["kl"] < 1e-8
    assert len(log.read_text().splitlines()) == 11


def test_a_folder_of_videos_is_evaluated(bundle: Path, tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", np.zeros((8, 64, 64, 3), np.uint8))
    rows = [{"video": "a.mp4", "question": f"Is it {c}?", "choices": ["yes", "no"], "answer": "no"} for c in "ab"]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    output = _run(str(bundle), "--data", str(tmp_path), "--frames", "8")
    assert "2 questions of" in output
    assert "95% interval" in output
    snapped = json.loads(_run(str(bundle), "--data", str(tmp_path), "--frames", "8", "--snap", "0.5", "--json"))
    assert (snapped["snap"], snapped["questions"]) == (0.5, 2)
