from pathlib import Path

import numpy as np
import pytest
import torch

from storm_edge.demo.tokenizer import write_demo_tokenizer
from storm_edge.demo.training.batches import Questioner, make_clips, make_questions
from storm_edge.demo.training.checkpoints import write_checkpoint
from storm_edge.demo.training.model import StormModel, block_mask, decode
from storm_edge.demo.training.muon import orthogonalized
from storm_edge.demo.training.plan import demo_config
from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.network.load import load_temporal, load_vision
from storm_edge.runtime.llm.prompt import ChatPrompt, Message


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    assert write_demo_tokenizer(folder) <= 4096
    return folder


@pytest.fixture(scope="module")
def questioner(tokenizer: Path) -> Questioner:
    return Questioner(ChatPrompt.open(tokenizer))


@pytest.fixture(scope="module")
def model() -> StormModel:
    torch.manual_seed(0)
    model = StormModel(demo_config(542))
    for p in model.parameters():
        p.data += 0.05 * torch.randn_like(p)
    return model


def test_the_lean_decoder_is_qwen2(model: StormModel) -> None:
    allowed, positions = block_mask(4, torch.tensor([[1] * 5 + [2] * 6, [1] * 9 + [2] * 2]))
    mask = torch.zeros(allowed.shape).masked_fill_(~allowed, -1e9)[:, None]
    x = torch.randn(2, 15, model.config.llm.hidden_size)
    theirs = model.llm.model(inputs_embeds=x, attention_mask=mask, position_ids=positions, use_cache=False)
    torch.testing.assert_close(decode(model.llm, x, mask, positions), theirs.last_hidden_state, rtol=1e-5, atol=1e-5)


def test_questions_behind_one_prefix_are_answered_as_if_each_were_alone(
    model: StormModel, questioner: Questioner
) -> None:
    rng = np.random.default_rng(0)
    clips = make_clips(rng, 1, 8, 64, model.config.token_grid)
    asked = make_questions(clips.scenes, rng, questioner, most=5, controls=2)
    before, visual = torch.tensor(questioner.before), torch.randn(1, 32, model.config.llm.hidden_size)
    wanted = asked.targets >= 0
    together = model.answer_logits(visual, before, asked.text, asked.segments, wanted)
    alone = []
    for number in range(1, int(asked.segments.max()) + 1):
        own = asked.segments[0] == number
        text, segments = asked.text[:, own], torch.ones_like(asked.text[:, own])
        alone.append(model.answer_logits(visual, before, text, segments, wanted[:, own]))
    assert len(alone) >= 2
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_a_training_prompt_is_the_runtime_prompt(questioner: Questioner, tokenizer: Path) -> None:
    rng = np.random.default_rng(0)
    clips = make_clips(rng, 1, 8, 64, 4)
    asked = make_questions(clips.scenes, rng, questioner, most=1, controls=1)
    prompt = ChatPrompt.open(tokenizer)
    start = int((asked.targets[0] >= 0).nonzero()[0]) + 1
    ids = asked.text[0, :start].tolist()
    question = prompt.decode(ids)
    rendered = prompt.render([Message("user", question, video=True)])
    assert rendered.before == questioner.before
    assert rendered.after == ids
    assert int(asked.targets[0][asked.targets[0] >= 0][-1]) in prompt.eos_ids


def test_a_written_checkpoint_is_the_trained_network(model: StormModel, tokenizer: Path, tmp_path: Path) -> None:
    write_checkpoint(model, tokenizer, tmp_path / "checkpoint")
    checkpoint = Checkpoint.open(tmp_path / "checkpoint")
    frames = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        ours = model.see(frames[None])
        tokens = load_vision(checkpoint)(frames)
        torch.testing.assert_close(tokens, ours[0], rtol=1e-4, atol=1e-4)
        visual = load_temporal(checkpoint, checkpoint.config)(tokens[None])
        reduced = model.reduce(model.mix(ours), pool=4, side=1, sample=1)
    torch.testing.assert_close(visual.flatten(1, 2), reduced, rtol=1e-3, atol=1e-3)
    size = sum(p.stat().st_size for p in (tmp_path / "checkpoint").rglob("*") if p.is_file())
    assert size <= 10 * 2**20


def test_pooling_and_sampling_keep_what_they_say() -> None:
    model = StormModel(demo_config(542))
    tokens = torch.arange(8.0)[None, :, None, None].expand(1, 8, 16, model.config.llm.hidden_size)
    assert model.reduce(tokens, 4, 1, 1)[0, :, 0].tolist() == [1.5] * 16 + [5.5] * 16
    assert model.reduce(tokens, 2, 2, 2)[0, :, 0].tolist() == [0.5] * 4 + [4.5] * 4


def test_an_orthogonalized_matrix_has_singular_values_near_1() -> None:
    torch.manual_seed(0)
    for shape in ((3, 32, 80), (2, 80, 32)):
        values = torch.linalg.svdvals(orthogonalized(torch.randn(shape)))
        assert float(values.min()) > 0.5
        assert float(values.max()) < 1.4
