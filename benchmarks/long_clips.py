"""Measure the temporal encoder of storm-7b's width (one layer, random weights) on long clips; prints Markdown.

Every measurement is a process of its own, whose peak counts everything in it. The forms take turns, so that a machine
that does other work is unfair to neither.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from storm_edge.runtime.answer.chunked import ChunkedTemporal, Layer, chunk_frames
from storm_edge.runtime.answer.temporal import Pieces, TemporalEncoder
from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.machine.memory import peak_memory_bytes
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession

GIB = 1 << 30
PAGE = """# Long clips on a CPU

Printed by `python benchmarks/long_clips.py > docs/long.md`: the temporal encoder of storm-7b's width, one layer of
random weights in fp32, 256 tokens a frame. Every figure is a process of its own; its peak counts Python, weights and
the clip.

Clips whose activations would take more than 1 GiB go through the encoder in chunks of some 1024 tokens: backwards for
the states of the backward direction, then forwards for both. What comes out is equal to the whole form's to the last
bit. Beside the clip's tokens, x of every token is kept up to 1 GiB, or as much as the tokens take; the rest of it is
computed twice.
"""


def one_layer() -> StormConfig:
    """storm-7b with one temporal layer, in fp32."""
    config = preset("storm-7b")
    temporal = config.temporal.model_copy(update={"num_layers": 1})
    return config.model_copy(update={"temporal": temporal, "dtype": "float32"})


def make(folder: Path) -> None:
    """Write the encoder's graph and its pieces."""
    import onnx
    import torch

    from storm_edge.export.graph_file import save_model
    from storm_edge.export.network import temporal
    from storm_edge.export.passes.cut_temporal import cut_temporal
    from storm_edge.export.trace.temporal import trace_temporal

    config = one_layer()
    torch.manual_seed(0)
    encoder = temporal.TemporalEncoder(config).eval().requires_grad_(False)
    for name, values in encoder.named_parameters():
        if name.endswith("_log"):
            values.copy_(torch.log(torch.arange(1.0, 1 + config.temporal.d_state)).expand_as(values))
        elif "dt_proj" in name and name.endswith("bias"):
            values.fill_(-4.6)  # steps of 0.01
    temporal.cast_for_export(encoder, torch.float32)
    save_model(trace_temporal(encoder, config, torch.float32), folder / "temporal.onnx", "temporal.data")
    model = onnx.load(folder / "temporal.onnx", load_external_data=False)
    for name, piece in cut_temporal(model, config).items():
        (folder / f"{name}.onnx").write_bytes(piece.SerializeToString())


def measure(folder: Path, frames: int, form: str) -> None:
    """Run one clip once and print seconds and peak bytes as JSON."""
    config = one_layer()

    def session(name: str) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(folder / f"{name}.onnx")

    def pieces() -> ChunkedTemporal:
        return ChunkedTemporal(
            [Layer(*(session(f"0.{p}") for p in ("enter", "states", "mix")))], session("pool"), config
        )

    # The whole form is asked for by a session of its own, whatever a pipeline would choose.
    encoder = TemporalEncoder(session("temporal"), Pieces(pieces, config)) if form == "chunks" else None
    whole = session("temporal") if encoder is None else None
    rng = np.random.default_rng(0)
    tokens = np.empty((frames, config.tokens_per_frame, config.llm.hidden_size), np.float32)
    for i in range(frames):
        tokens[i] = rng.standard_normal(tokens.shape[1:], np.float32)
    step = chunk_frames(config)
    if encoder is not None:
        encoder.in_chunks(tokens[:step], step)  # the pieces are loaded
    begin = time.perf_counter()
    if encoder is not None:
        encoder.in_chunks(tokens, step, overwrite=True)
    elif whole is not None:
        whole.run(tokens=tokens[None])
    print(json.dumps({"seconds": time.perf_counter() - begin, "peak": peak_memory_bytes()}))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 32, 128, 512])
    parser.add_argument("--whole", type=int, default=64, help="the most frames for the whole form")
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "FRAMES", "FORM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(Path(options.one[0]), int(options.one[1]), options.one[2])
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        for frames in options.frames:
            row = [str(frames)]
            for form in ("whole", "chunks"):
                if form == "whole" and frames > options.whole:
                    row.append("not run")
                    continue
                command = [sys.executable, __file__, "--one", folder, str(frames), form]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                row.append(f"{found['seconds'] / frames:.2f} s, {found['peak'] / GIB:.2f} GiB")
                print(row, file=sys.stderr)
            rows.append(row)
    print(PAGE)
    print("| frames | whole: seconds a frame, peak of the process | in chunks |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(f"\nOn {platform.machine()}, ONNX Runtime's CPU, fp32.")


if __name__ == "__main__":
    main()
