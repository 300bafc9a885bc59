import json
from pathlib import Path

import numpy as np
import pytest
import torch

from storm_edge.demo.tokenizer import write_demo_tokenizer
from storm_edge.demo.training.batches import make_clips
from storm_edge.demo.training.plan import STAGES as PLANNED
from storm_edge.demo.training.plan import Stage, rate
from storm_edge.demo.training.run import Run
from storm_edge.demo.training.workers import Workers
from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.runtime.errors import UsageError

pytest.importorskip("matplotlib")

STAGES = (
    Stage("images", 2, 2, ((1, 1.0),), questions=2, controls=2),
    Stage("places", 1, 2, ((1, 1.0),), questions=0, controls=0),
    Stage("clips", 2, 2, ((8, 1.0),), questions=2, controls=1, frozen=True),
)


def _run(folder: Path, stages: tuple[Stage, ...] = STAGES) -> Run:
    return Run(folder, 0, stages, "cpu", Workers(0, 1, folder), lambda _: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_demo_tokenizer(folder / "tokenizer")
    return folder


def test_a_stopped_run_goes_on_to_the_same_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storm_edge.demo.training.run._TEST_CLIPS", 10)
    straight = _run(folder)
    straight.train(save_every=1e9, test_every=100)
    (folder / "state.pt").unlink()
    stopped = _run(folder)
    for _ in range(4):
        stopped._train_step()
        stopped.step += 1
    stopped.save()
    resumed = _run(folder)
    assert resumed.step == 4
    resumed.train(save_every=1e9, test_every=100)
    for name, value in straight.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert Checkpoint.open(folder / "checkpoint").config == resumed.config
    assert (folder / "curves.png").stat().st_size > 1000
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    assert set(last["accuracy"]) >= {"direction", "count"}


def test_the_vision_tower_stands_still_where_a_stage_says_so(folder: Path) -> None:
    (folder / "state.pt").unlink(missing_ok=True)
    run = _run(folder, STAGES[2:])
    before = {n: v.clone() for n, v in run.model.state_dict().items()}
    run._train_step()
    moved = {n.split(".")[0] for n, v in run.model.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {"temporal", "llm", "heads"}


def test_a_trained_checkpoint_is_lengthened_and_only_its_heads_learn_first(folder: Path) -> None:
    (folder / "state.pt").unlink(missing_ok=True)
    given = _run(folder)
    given.save()
    (folder / "state.pt").unlink()
    heads = Stage("heads", 1, 2, ((8, 1.0),), questions=0, controls=0, frozen=True)
    torch.manual_seed(7)
    run = Run(folder, 7, (heads,), "cpu", Workers(0, 1, folder), lambda _: None, start=folder / "checkpoint")
    run._train_step()
    moved = {
        n.split(".")[0] for n, v in run.model.state_dict().items() if not torch.equal(v, given.model.state_dict()[n])
    }
    assert moved == {"heads"}


def test_a_checkpoint_of_other_sizes_is_not_lengthened(folder: Path, tmp_path: Path) -> None:
    (folder / "state.pt").unlink(missing_ok=True)
    run = Run(folder, 0, STAGES, "cpu", Workers(0, 1, folder), lambda _: None, temporal=False)
    run.save()
    (folder / "state.pt").unlink()
    with pytest.raises(UsageError, match="other sizes"):
        Run(folder, 0, STAGES, "cpu", Workers(0, 1, folder), lambda _: None, start=folder / "checkpoint")


def test_the_rates_rise_stay_and_fall() -> None:
    stage = Stage("any", 1000, 2, ((8, 1.0),), questions=2, controls=1, rates=(0.8, 0.2), hold=0.5)
    assert rate(stage, 0) < 0.1
    assert rate(stage, 50) == rate(stage, 500) == 0.8
    assert rate(stage, 750) == pytest.approx(0.5)
    assert rate(stage, 999) == pytest.approx(0.2, abs=0.01)
    assert rate(PLANNED[-1], PLANNED[-1].steps - 1) == pytest.approx(0, abs=1e-3)


def test_a_stage_may_ask_for_more_clips_of_the_mixed_theme() -> None:
    clips = make_clips(np.random.default_rng(0), 40, 8, 32, 4, mixed=1.0)
    kinds = {t.kind for scene in clips.scenes for t in scene.things}
    assert {"bounce", "blink"} <= kinds
    assert not {"appear", "flash"} & kinds


def test_a_folder_with_another_networks_run_is_refused(folder: Path) -> None:
    (folder / "state.pt").unlink(missing_ok=True)
    _run(folder).save()
    with pytest.raises(UsageError, match="another network: name another folder"):
        Run(folder, 0, STAGES, "cpu", Workers(0, 1, folder), lambda _: None, temporal=False)
    (folder / "state.pt").unlink()
