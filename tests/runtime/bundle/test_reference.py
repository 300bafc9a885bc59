from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from storm_edge.runtime.bundle.manifest import MANIFEST, Bundle, describe_file
from storm_edge.runtime.bundle.reference import Clip, read_clip
from storm_edge.runtime.errors import BundleError

CLIP = "reference/clip0.safetensors"


def reseal(path: Path, name: str) -> None:
    """Let the manifest say what the file is now, as somebody does who wants it to be read."""
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"][name] = describe_file(path / name).model_dump()
    (path / MANIFEST).write_text(json.dumps(manifest))


def not_finite(clip: Clip) -> None:
    clip["logits"][0, 0] = np.nan


def outside_the_vocabulary(clip: Clip) -> None:
    clip["greedy"][0] = 10**9


def negative(clip: Clip) -> None:
    clip["before"][0] = -1


def of_other_frames(clip: Clip) -> None:
    clip["frames"] = clip["frames"][:-4]


def of_no_frames(clip: Clip) -> None:
    clip |= {key: clip[key][:0] for key in ("frames", "tokens")} | {"visual_tokens": clip["visual_tokens"][:, :0]}


def of_another_size(clip: Clip) -> None:
    clip["frames"] = clip["frames"][:, :8]


def of_another_type(clip: Clip) -> None:
    clip["tokens"] = clip["tokens"].astype(np.float64)


def without_logits(clip: Clip) -> None:
    del clip["logits"]


CHANGES = [not_finite, outside_the_vocabulary, negative, of_other_frames, of_no_frames, of_another_size]


@pytest.mark.parametrize("change", [*CHANGES, of_another_type, without_logits])
def test_a_clip_that_does_not_fit_the_model_is_refused(
    bundle: Path, copy_of: Callable[[Path], Path], change: Callable[[Clip], None]
) -> None:
    path = copy_of(bundle)
    clip = dict(load_file(path / CLIP))
    change(clip)
    save_file({key: np.ascontiguousarray(x) for key, x in clip.items()}, path / CLIP)
    reseal(path, CLIP)
    with pytest.raises(BundleError, match=r"clip0\.safetensors is damaged"):
        read_clip(Bundle.open(path), CLIP)
