"""The reference record, as everything after export reads it: what PyTorch made of a few clips, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import BundleError

Clip = dict[str, NDArray[Any]]
MOST_FRAMES, MOST_STEPS, MOST_TOKENS = 1024, 1024, 65_536  # of a clip; export writes a few dozen
_FREE = {"frames": MOST_FRAMES, "steps": MOST_STEPS, "tokens": MOST_TOKENS, "one or none": 1}


def read_clip(bundle: Bundle, name: str) -> Clip:
    """One reference clip, see `record_clips` of export for its keys; raises BundleError for what does not fit.

    Types and shapes are compared with the configuration before anything is read; every number is finite, every token
    one of the vocabulary's.
    """
    path = bundle.file(name)
    again = "copy the bundle again or repeat `storm export`"
    try:
        with safe_open(path, framework="np") as file:
            slices = {key: file.get_slice(key) for key in _expected(bundle)}
            found = {key: (s.get_dtype(), list(s.get_shape())) for key, s in slices.items()}
            wrong = [key for key, shape in _expected(bundle).items() if not _fits(found[key], shape)]
            if wrong:
                raise ValueError(f"{wrong[0]} is {' '.join(map(str, found[wrong[0]]))[:100]}")
            clip: Clip = {key: file.get_tensor(key) for key in slices}
        _require_sensible(clip, bundle)
    except (SafetensorError, OSError, ValueError) as e:
        raise BundleError(f"{path} is damaged ({' '.join(str(e).split())[:200]}): {again}.") from e
    return clip


def _expected(bundle: Bundle) -> Mapping[str, tuple[str, list[int | str]]]:
    config = bundle.config
    side, width = config.vision.image_size, config.llm.hidden_size
    return {
        "frames": ("U8", ["frames", side, side, 3]),
        "before": ("I64", ["tokens"]),
        "after": ("I64", ["tokens"]),
        "newline": ("I64", ["one or none"]),
        "tokens": ("F32", ["frames", config.tokens_per_frame, width]),
        "visual_tokens": ("F32", [1, "frames", config.pooled_tokens_per_frame, width]),
        "logits": ("F32", ["steps", config.llm.vocab_size]),
        "greedy": ("I64", ["steps"]),
    }


def _fits(found: tuple[str, list[int]], expected: tuple[str, list[int | str]]) -> bool:
    (dtype, sizes), (wanted, shape) = found, expected
    if dtype != wanted or len(sizes) != len(shape):
        return False
    return all(0 <= n <= _FREE[s] if isinstance(s, str) else n == s for n, s in zip(sizes, shape, strict=True))


def _require_sensible(clip: Clip, bundle: Bundle) -> None:
    frames, pool = len(clip["frames"]), bundle.config.reduction.temporal_pool
    if not frames or frames % pool or len(clip["tokens"]) != frames or clip["visual_tokens"].shape[1] != frames // pool:
        raise ValueError(f"its {frames} frames and its tokens do not fit together")
    if not len(clip["greedy"]) or len(clip["greedy"]) != len(clip["logits"]) or not len(clip["after"]):
        raise ValueError("its tokens and logits do not fit together")
    trained = bundle.config.reduction.image_newline != "none"  # whose row is behind the vocabulary's last
    for key in ("before", "after", "newline", "greedy"):
        end = bundle.config.llm.vocab_size + (trained and key == "newline")
        if ((clip[key] < 0) | (clip[key] >= end)).any():
            raise ValueError(f"{key} holds tokens outside the vocabulary")
    if trained and not len(clip["newline"]):
        raise ValueError("newline holds no line end")
    for key in ("tokens", "visual_tokens", "logits"):
        if not np.isfinite(clip[key]).all():
            raise ValueError(f"{key} holds what is no number")
