"""BIMBA's layout, and what its encoders make of frames against transformers' tower and the float64 block in numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bimba_block import bimba
from downstream import compiled, quantized_engine, quantizers
from llava_encoding import encoded, pixels
from llava_models import SIDE, random_llava, save_as_authors

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.export_bundle import export_bundle, synthetic_frames
from storm_edge.export.families.recognise import open_checkpoint
from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.bundle.manifest import STAGES, Bundle
from storm_edge.runtime.errors import CheckpointError
from storm_edge.runtime.machine.targets import target

WIDTH, CHANNELS, STATE, RANK = 64, 128, 16, 4


def selector() -> dict[str, torch.Tensor]:
    """Random tensors of the authors' MambaCompressor, by their names."""
    torch.manual_seed(1)
    shapes = {"norm.weight": (WIDTH,), "mixer.in_proj.weight": (2 * CHANNELS, WIDTH)}
    shapes["mixer.out_proj.weight"] = (WIDTH, CHANNELS)
    for suffix in ("", "_b"):
        shapes |= {
            f"mixer.conv1d{suffix}.weight": (CHANNELS, 1, 4),
            f"mixer.conv1d{suffix}.bias": (CHANNELS,),
            f"mixer.x_proj{suffix}.weight": (RANK + 2 * STATE, CHANNELS),
            f"mixer.dt_proj{suffix}.weight": (CHANNELS, RANK),
            f"mixer.dt_proj{suffix}.bias": (CHANNELS,),
            f"mixer.A{suffix}_log": (CHANNELS, STATE),
            f"mixer.D{suffix}": (CHANNELS,),
        }
    return {f"layers.0.{n}": torch.randn(s) * (0.5 if len(s) == 1 else s[-1] ** -0.5) for n, s in shapes.items()}


def saved(root: Path, **config: object) -> Path:
    tensors = {f"model.compressor.{name}": tensor for name, tensor in selector().items()}
    chosen = {"compressor_type": "bimba", "mm_newline_position": "grid", **config}
    return save_as_authors(random_llava(), root, tensors, **chosen)


@pytest.mark.usefixtures("small_tower")
@torch.no_grad()
def test_only_the_queries_go_on_a_line_end_after_every_row(tmp_path: Path) -> None:
    root = saved(tmp_path / "bimba")
    assert open_checkpoint(root)[0].name == "bimba"
    frames = synthetic_frames(3, SIDE, 1)
    model = random_llava()
    features = model.model.vision_tower(pixels(frames)[0], output_hidden_states=True).hidden_states[-1]
    tokens = model.model.multi_modal_projector(features).numpy().astype(np.float64)  # (3, 5 * 5, D)
    state = {n.removeprefix("layers.0."): t.numpy().astype(np.float64) for n, t in selector().items()}
    rows = bimba(tokens, 5, state).reshape(3 * 3, 3, WIDTH)
    newline = np.broadcast_to(model.model.image_newline.numpy(), (len(rows), 1, WIDTH))
    expected = np.concatenate([rows, newline], axis=1).reshape(-1, WIDTH)
    np.testing.assert_allclose(encoded(root, frames), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("small_tower")
def test_a_bundle_of_it_is_built_and_verified_and_answers(tmp_path: Path) -> None:
    export_bundle(saved(tmp_path / "checkpoint"), tmp_path / "bundle")
    record = build(Bundle.open(tmp_path / "bundle"), target("cpu"), BuildOptions())
    assert record.verified
    assert not record.pieces
    video = load(tmp_path / "bundle").open(synthetic_frames(5, SIDE, 2))
    np.testing.assert_allclose(
        np.asarray(video.rows), encoded(tmp_path / "checkpoint", synthetic_frames(5, SIDE, 2)), atol=1e-4
    )
    assert video.ask("What?").stats.visual_tokens == 5 * 3 * (3 + 1)


@pytest.mark.usefixtures("small_tower")
def test_int8_engines_quantize_what_its_selector_multiplies(tmp_path: Path) -> None:
    bundle, record = quantized_engine(saved(tmp_path / "checkpoint"))
    assert quantizers(bundle, record)["temporal"] == 2  # what in_proj and out_proj read


@pytest.mark.usefixtures("rtx", "small_tower")
def test_tensorrt_for_rtx_compiles_it(tmp_path: Path) -> None:
    assert {*compiled(saved(tmp_path / "checkpoint"))} == {*STAGES}


@pytest.mark.usefixtures("small_tower")
def test_another_compressor_and_pooled_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="temporal_pooling is 2"):
        open_checkpoint(saved(tmp_path / "pooled", temporal_pooling=2))
    root = saved(tmp_path / "other")
    path = root / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"compressor_type": "perceiver"}))
    with pytest.raises(CheckpointError, match="is of no family"):
        open_checkpoint(root)
