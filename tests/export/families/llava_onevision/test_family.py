"""LLaVA-OneVision against transformers' own implementation, in both layouts: same frames, same prompt, same weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from downstream import compiled, quantized_engine, quantizers
from llava_encoding import encoded, pixels
from llava_models import CHAT_TEMPLATE, SIDE, VOCABULARY, Model, random_llava, save_as_authors, save_as_transformers
from numpy.typing import NDArray
from transformers import AutoTokenizer

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.export_bundle import export_bundle, synthetic_frames
from storm_edge.export.families.recognise import open_checkpoint
from storm_edge.runtime.answer.pipeline import Pipeline, load
from storm_edge.runtime.bundle.manifest import STAGES, Bundle
from storm_edge.runtime.errors import CheckpointError
from storm_edge.runtime.llm.prompt import ChatPrompt, Message, Prompt
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.machine.targets import target

QUESTION = "What happens in this video?"
VIDEO_ID = VOCABULARY - 1  # stands for visual tokens in transformers' prompt; no text has it
STEPS = 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in transformers' layout; do not change it."""
    return save_as_transformers(random_llava(), tmp_path_factory.mktemp("llava") / "checkpoint")


@pytest.fixture(scope="module")
def pipeline(checkpoint: Path) -> Pipeline:
    """It exported, built for the CPU in fp32, verified, loaded."""
    export_bundle(checkpoint, checkpoint.parent / "bundle")
    build(Bundle.open(checkpoint.parent / "bundle"), target("cpu"), BuildOptions())
    return load(checkpoint.parent / "bundle")


def expected(model: Model, prompt: Prompt, frames: torch.Tensor, rows: int) -> tuple[NDArray[np.float32], list[int]]:
    """transformers' logits (STEPS, vocabulary) and the tokens that it chooses."""
    model.config.video_token_index = VIDEO_ID
    ids = torch.tensor([[*prompt.before, *[VIDEO_ID] * rows, *prompt.after]])
    made = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=frames,
        max_new_tokens=STEPS,
        min_new_tokens=STEPS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.stack(made.logits)[:, 0].numpy(), made.sequences[0, -STEPS:].tolist()


def test_logits_and_tokens_are_those_of_transformers(pipeline: Pipeline) -> None:
    model = random_llava()
    frames = synthetic_frames(3, SIDE, 0)
    video = pipeline.open(frames)
    prompt = pipeline.prompt.render([Message("user", QUESTION, video=True)])
    theirs = model.get_video_features(pixels(frames)).pooler_output[0].numpy()
    np.testing.assert_allclose(np.asarray(video.rows), theirs, atol=2e-5)  # (3 * 3 * 3 + 1, D), of up to 8
    logits, tokens = expected(model, prompt, pixels(frames), len(theirs))
    ours = pipeline.stages.generator.forced(SplicedPrompt(prompt.before, video.rows, prompt.after), tokens)
    np.testing.assert_allclose(ours, logits, atol=1e-4)
    assert ours.argmax(axis=1).tolist() == tokens
    assert len(set(tokens)) > 4


def test_int8_engines_are_built_though_nothing_of_its_temporal_stage_multiplies(tmp_path: Path) -> None:
    root = save_as_transformers(random_llava(), tmp_path / "checkpoint")
    bundle, record = quantized_engine(root)
    found = quantizers(bundle, record)
    assert found["temporal"] == 0
    assert found["vision"] >= 12  # four of a block


@pytest.mark.usefixtures("rtx")
def test_tensorrt_for_rtx_compiles_it(tmp_path: Path) -> None:
    assert {*compiled(save_as_transformers(random_llava(), tmp_path / "checkpoint"))} == {*STAGES}


def test_the_prompt_is_the_one_that_the_processors_template_writes(checkpoint: Path) -> None:
    prompt = ChatPrompt.open(checkpoint).render([Message("user", QUESTION, video=True)])
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    content = [{"type": "video"}, {"type": "text", "text": QUESTION}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], chat_template=CHAT_TEMPLATE, tokenize=False, add_generation_prompt=True
    )
    before, after = text.split("<video>")
    assert prompt == Prompt(tokenizer(before).input_ids, tokenizer(after).input_ids)


@pytest.mark.usefixtures("small_tower")
def test_the_authors_layout_is_the_same_model(tmp_path: Path) -> None:
    model = random_llava(tie_word_embeddings=True)
    family, ours = open_checkpoint(save_as_authors(model, tmp_path / "authors"))
    _, theirs = open_checkpoint(save_as_transformers(model, tmp_path / "transformers"))
    assert family.name == "llava-onevision"
    for mine, other in ((ours.vision, theirs.vision), (ours.temporal, theirs.temporal), (ours.llm, theirs.llm)):
        assert {*mine.names} >= {*other.names}  # a tied head is in one of the files
        for name in other.names:
            np.testing.assert_array_equal(mine.read(name), other.read(name), err_msg=name)
    assert ours.config.vision.layers_run == theirs.config.vision.layers_run == 3
    same = {"vision": theirs.config.vision}
    assert ours.config.model_copy(update=same) == theirs.config


@pytest.mark.usefixtures("small_tower")
@pytest.mark.parametrize(("position", "every"), [("one_token", 0), ("grid", 3), ("frame", 9), ("no_token", None)])
def test_line_ends_stand_where_the_authors_code_puts_them(position: str, every: int | None, tmp_path: Path) -> None:
    model = random_llava()
    root = save_as_authors(model, tmp_path / "llava", mm_newline_position=position)
    frames = synthetic_frames(2, SIDE, 1)
    features = model.get_video_features(pixels(frames)).pooler_output[0]
    tokens, newline = features[:-1], features[-1:]  # (2 * 3 * 3, D), and transformers' one at the end
    lines = tokens.split(every or len(tokens))
    theirs = tokens if every is None else torch.cat([part for line in lines for part in (line, newline)])
    np.testing.assert_allclose(encoded(root, frames), theirs.numpy(), atol=2e-5)


@pytest.mark.usefixtures("small_tower")
def test_a_model_that_was_trained_with_times_is_told_them(tmp_path: Path) -> None:
    for told in (True, False):
        root = save_as_authors(random_llava(), tmp_path / f"{told}", add_time_instruction=told)
        assert open_checkpoint(root)[1].config.prompt.times is told


@pytest.mark.usefixtures("small_tower")
def test_average_pooling_drops_the_odd_row_and_column(tmp_path: Path) -> None:
    model = random_llava()
    root = save_as_authors(model, tmp_path / "llava", mm_newline_position="no_token", mm_spatial_pool_mode="average")
    frames = synthetic_frames(2, SIDE, 1)
    rows = encoded(root, frames)  # (2 * 2 * 2, D)
    features = model.model.vision_tower(pixels(frames)[0], output_hidden_states=True).hidden_states[-1]
    grid = model.model.multi_modal_projector(features).reshape(2, 5, 5, -1).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.avg_pool2d(grid, 2).permute(0, 2, 3, 1).reshape(len(rows), -1)
    np.testing.assert_allclose(rows, theirs.numpy(), atol=2e-5)


def test_the_video_processors_mean_and_deviation_are_in_the_vision_graph(tmp_path: Path) -> None:
    mean, std = [0.48, 0.45, 0.4], [0.26, 0.27, 0.28]
    model = random_llava()
    root = save_as_transformers(model, tmp_path / "llava", image_mean=mean, image_std=std)
    frames = synthetic_frames(2, SIDE, 1)
    theirs = model.get_video_features(pixels(frames, mean, std)).pooler_output[0]
    np.testing.assert_allclose(encoded(root, frames), theirs.numpy(), atol=2e-5)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("preprocessor_config.json", {"resample": 2}, "resample is 2"),
        ("preprocessor_config.json", {"do_center_crop": True}, "do_center_crop is True"),
        ("preprocessor_config.json", {"rescale_factor": 1 / 127.5}, "only 1/255"),
        ("video_preprocessor_config.json", {"size": {"height": 96, "width": 96}}, "the vision tower takes 70 x 70"),
        ("processor_config.json", {"video_processor": {"do_normalize": False}}, "do_normalize is False"),
    ],
)
def test_another_preparation_of_frames_is_refused(
    name: str, changes: Mapping[str, Any], words: str, tmp_path: Path
) -> None:
    root = save_as_transformers(random_llava(), tmp_path / "llava")
    (root / name).write_text(json.dumps(changes))
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(root)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vision_feature_layer": [-2, -1]}, "joins several hidden states"),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act is 'relu'"),
        ({"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy is 'default'"),
        ({"vision_config": None}, "has no vision_config"),
        ({"vision_config": {"model_type": "clip_vision_model"}}, "only SigLIP runs here"),
        ({"text_config": {"model_type": "llama"}}, "of type 'llama'"),
        ({"text_config": {"model_type": "qwen2", "use_sliding_window": True}}, "sliding window"),
    ],
)
def test_forms_that_do_not_run_here_are_refused(changes: Mapping[str, Any], words: str, tmp_path: Path) -> None:
    root = save_as_transformers(random_llava(), tmp_path / "llava")
    path = root / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=words) as caught:
        open_checkpoint(root)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("small_tower")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mm_projector_type": "pooler"}, "mm_projector_type is 'pooler'"),
        ({"add_faster_video": True}, "add_faster_video is True"),
        ({"mm_vision_tower": "openai/clip-vit-large-patch14-336"}, "clip-vit-large-patch14-336"),
        ({"mm_spatial_pool_mode": "max"}, "mm_spatial_pool_mode is 'max'"),
        ({"mm_patch_merge_type": "flat", "mm_resampler_type": "qformer"}, "mm_resampler_type is 'qformer'"),
    ],
)
def test_forms_of_the_authors_code_that_do_not_run_here_are_refused(
    changes: Mapping[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(save_as_authors(random_llava(), tmp_path / "llava", **changes))
