"""What is mutated: small videos of many formats, and a checkpoint with its bundle."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from storm_edge.calibration.calibrate import calibrate
from storm_edge.calibration.smoothquant import SmoothQuant
from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.initialize import initialize
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.machine.targets import target

FRAMES, HEIGHT, WIDTH = 24, 48, 64
# name -> codec, pixel format, container, options of codec and container
VIDEOS: dict[str, tuple[str, str, str | None, dict[str, str], dict[str, str]]] = {
    "h264.mp4": ("libx264", "yuv420p", None, {"g": "8", "bf": "2"}, {"movflags": "faststart"}),
    "h264.mov": ("libx264", "yuv420p10le", None, {"g": "8"}, {}),
    "h264.mkv": ("libx264", "yuv420p", None, {"g": "8", "bf": "2"}, {}),
    "fragments.mp4": ("libx264", "yuv420p", None, {"g": "8"}, {"movflags": "frag_keyframe+empty_moov"}),
    "h264.ts": ("libx264", "yuv420p", "mpegts", {"g": "8"}, {}),
    "hevc.mp4": ("libx265", "yuv420p", None, {"preset": "ultrafast", "x265-params": "keyint=8:log-level=none"}, {}),
    "hevc.mkv": ("libx265", "yuv420p10le", None, {"x265-params": "keyint=8:log-level=none"}, {}),
    "vp9.webm": ("libvpx-vp9", "yuva420p", None, {"g": "8", "deadline": "realtime", "cpu-used": "8"}, {}),
    "av1.mp4": ("libsvtav1", "yuv420p", None, {"g": "8", "preset": "12"}, {}),
    "av1.mkv": ("libsvtav1", "yuv420p10le", None, {"g": "8", "preset": "12"}, {}),
    "mpeg4.avi": ("mpeg4", "yuv420p", None, {"g": "8", "bf": "2"}, {}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", None, {}, {}),
    "prores.mov": ("prores_ks", "yuv422p10le", None, {}, {}),
    "animation.gif": ("gif", "rgb8", None, {}, {}),
    "animation.apng": ("apng", "rgba", None, {}, {}),
}
IMAGES: dict[str, tuple[str, str, str | None, dict[str, str], dict[str, str]]] = {
    "image.png": ("png", "rgba", "image2pipe", {}, {}),
    "image.jpg": ("mjpeg", "yuvj420p", "image2pipe", {}, {}),
    "image.webp": ("libwebp", "yuv420p", "image2pipe", {}, {}),
    "image.tiff": ("tiff", "rgb24", "image2pipe", {}, {}),
}


def write_videos(folder: Path) -> list[Path]:
    """Every kind of video and image, a second or less."""
    pictures = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    pictures = pictures.repeat(8, axis=1).repeat(8, axis=2)  # (frames, H, W, 3), blocks that codecs keep small
    kinds = {**VIDEOS, **IMAGES}
    for name, (codec, pixels, container, options, flags) in kinds.items():
        with av.open(str(folder / name), "w", format=container, options=flags) as output:
            stream: Any = output.add_stream(codec, rate=25, options=options)
            stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixels
            for i, picture in enumerate(pictures[: 1 if name in IMAGES else FRAMES]):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
    return [folder / name for name in kinds]


def tiny_config() -> StormConfig:
    """The smallest model that has every part."""
    mini = preset("storm-mini")
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    llm = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 512}
    return mini.model_copy(
        update={
            "vision": mini.vision.model_copy(update=vision | {"image_size": 16}),
            "temporal": mini.temporal.model_copy(update={"num_layers": 1}),
            "llm": mini.llm.model_copy(update=llm | {"max_position_embeddings": 512}),
        }
    )


def write_model(folder: Path) -> tuple[Path, Path]:
    """A tiny checkpoint, and its bundle with an engine and a calibration that smooths."""
    checkpoint, bundle = folder / "checkpoint", folder / "bundle"
    initialize(tiny_config(), checkpoint)
    export_bundle(checkpoint, bundle)
    build(Bundle.open(bundle), target("cpu"), BuildOptions())
    clips = np.random.default_rng(0).integers(0, 256, (8, 8, 16, 16, 3), dtype=np.uint8)
    calibrate(Bundle.open(bundle), lambda: iter(clips), "noise", samples=8, smoothquant=SmoothQuant())
    return checkpoint, bundle
