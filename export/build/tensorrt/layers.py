"""What has become of a network's layers in its engine: are plugins called, is attention one kernel.

The engine inspector says so where the engine can be loaded, which takes its GPU. TensorRT for RTX also lists the layers
while it builds, whatever GPU is here.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# A fused attention kernel's layer is called `_gemm_mha_v2_...` (seen in TensorRT for RTX 1.7).
_FUSED = re.compile(r"mha|fmha|fused_attention", re.IGNORECASE)
_LISTED = re.compile(r"^Name: (.*?), LayerType: ", re.MULTILINE)
# What the builder appends to a layer's name: the part of the engine it lies in, the profile.
_APPENDED = re.compile(r"(_myl\d+_\d+| \[profile \d+\])*")


def engine_layers(trt: Any, logger: Any, engine: Path) -> list[str] | None:
    """The names of an engine's layers; None where neither inspector nor builder tells.

    `logger` is the builder's, of callbacks.py. Loads the engine, so that its weights are on the GPU meanwhile.
    """
    with engine.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        loaded = trt.Runtime(logger).deserialize_cuda_engine(content)
    if loaded is not None:
        told = loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        return inspected_names(told)
    return _LISTED.findall(logger.layers) or None


def inspected_names(told: str) -> list[str] | None:
    """The layers' names in the inspector's JSON, which has either names or one object a layer."""
    try:
        layers = json.loads(told)["Layers"]
        return [layer if isinstance(layer, str) else layer["Name"] for layer in layers] or None
    except (ValueError, KeyError, TypeError):
        return None


def plugins_found(plugins: Sequence[str], layers: Sequence[str]) -> int:
    """How many of a network's plugin layers, by name, an engine has as layers of their own."""
    bare = {_APPENDED.sub("", layer) for layer in layers}
    return sum(plugin in bare for plugin in plugins)


def fused_attentions(layers: Sequence[str]) -> int:
    """How many layers of an engine are a fused attention kernel."""
    return sum(bool(_FUSED.search(layer)) for layer in layers)
