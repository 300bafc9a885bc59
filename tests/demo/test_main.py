import sys
from pathlib import Path

import pytest

from storm_edge.demo.__main__ import main
from storm_edge.runtime.video import read_frames


def test_it_writes_a_video_with_its_question_and_what_a_bundle_answers(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "argv", ["demo", str(tmp_path), "--bundle", str(bundle)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    question, truth = ((tmp_path / name).read_text().strip() for name in ("question.txt", "answer.txt"))
    printed = capsys.readouterr().out
    assert question in printed
    assert truth in printed
    assert sum(len(b.frames) for b in read_frames(tmp_path / "clip.mp4", size=64)) == 32
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
