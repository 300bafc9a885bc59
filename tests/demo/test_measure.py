import json
import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import pytest
import torch

from storm_edge.demo import measure
from storm_edge.demo.items import demo_items
from storm_edge.demo.tokenizer import write_demo_tokenizer
from storm_edge.demo.training.checkpoints import write_checkpoint
from storm_edge.demo.training.model import StormModel
from storm_edge.demo.training.plan import demo_config
from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.export_bundle import export_bundle
from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.proof.evaluate import answer_items

QUESTIONS = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of untrained networks, with a temporal encoder and without one."""
    folder = tmp_path_factory.mktemp("measure")
    size = write_demo_tokenizer(folder / "tokenizer")
    for name in ("whole", "bare"):
        torch.manual_seed(0)
        model = StormModel(demo_config(size, temporal=name == "whole"))
        for p in model.parameters():
            p.data += 0.05 * torch.randn_like(p)
        write_checkpoint(model, folder / "tokenizer", folder / name)
    return folder


def test_pytorch_and_a_built_engine_are_asked_the_same_and_answer_the_same(folder: Path) -> None:
    export_bundle(folder / "whole", folder / "bundle")
    build(Bundle.open(folder / "bundle"), target("cpu"), BuildOptions())
    pipeline = load(folder / "bundle")
    built = list(answer_items(pipeline, islice(demo_items(frames=16, size=64), QUESTIONS), frames=16))
    measured = measure.Asker(folder / "whole")(16, QUESTIONS, [measure.TRAINED])[0]
    assert [asdict(r) for r in measured] == [asdict(r) for r in built]
    assert len({r.predicted for r in measured}) > 1


def test_it_prints_every_table_and_how_many_answers_agree(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("storm_edge.demo.training.answering.MAX_TOKENS", 2)  # an untrained network finds no end
    results = measure.Asker(folder / "whole")(16, QUESTIONS, [measure.TRAINED])[0]
    rows = [{"engine": "cpu-fp32"}, *map(asdict, results[:-1]), asdict(results[-1]) | {"predicted": "?"}]
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["measure", str(folder / "whole"), "-n", str(QUESTIONS), "--lengths", "8", "12"]
    arguments += ["--without", str(folder / "bare"), "--results", str(folder / "results.jsonl")]
    monkeypatch.setattr(sys, "argv", arguments)
    measure.main()
    printed = capsys.readouterr().out
    assert f"the same answer to {QUESTIONS - 1} of {QUESTIONS} questions" in printed
    assert "| temporal pooling and sampling | 64 | 12.50% |" in printed
    assert printed.count("| time/blinks |") == 2
    assert printed.count("pooled, k = 4: time/blinks") == 2
    assert "| 12 | " in printed


@pytest.mark.parametrize("arguments", [["nowhere"], ["whole", "--tables", "--results", "nothing.jsonl"]])
def test_what_cannot_be_read_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["measure", *arguments])
    with pytest.raises(SystemExit, match=r"^error: [^\n]*no(where|thing)[^\n]*$"):
        measure.main()
