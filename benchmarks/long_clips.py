"""Measure the temporal encoder of storm-7b's width (one layer, random weights) on long clips; prints Markdown.

Every measurement is a process of its own with one thread, so that its time on a core says something on a machine that
does other work too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from storm_edge.runtime.answer.chunked import ChunkedTemporal, Layer
from storm_edge.runtime.answer.clip_tokens import ClipTokens, LongClips
from storm_edge.runtime.answer.temporal import Pieces, TemporalEncoder
from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.config.sizes import VISION_BATCH, chunk_frames
from storm_edge.runtime.machine.doctor import examine
from storm_edge.runtime.machine.memory import peak_memory_bytes
from storm_edge.runtime.sessions.device import HOST
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession

GIB = 1 << 30
FORMS = {"whole": "whole, fp32", "float32": "in chunks, fp32", "bfloat16": "in chunks, a bf16 model"}
PAGE = """# Long clips on a CPU

Printed by `python benchmarks/long_clips.py > docs/long.md`: the temporal encoder of storm-7b's width, one layer of
random weights, 256 tokens a frame; seconds of one core a frame and the peak of the process. Every figure is a process
of its own with one thread, whose peak counts Python, weights, the clip and what comes out.

Clips whose activations would take more than 1 GiB go through the encoder in chunks that take 168 MiB, 1024 tokens at
this width: backwards for the states of the backward direction, then forwards for both. In fp32 what comes out is equal
to the whole form's to the last bit. The clip's tokens are held once, and what lies between two layers takes their
place. Of a model in fp16 or bf16 a long clip's tokens wait in that type, and are rounded to it between layers, as on a
GPU; a chunk becomes fp32 when it is computed. Where there is room, x of every token is kept from the first sweep for
the second, up to 1 GiB or as much as the tokens take; the rest of it is computed twice.

ONNX Runtime's memory pattern is off. With it, a second run of 32 frames through the whole form peaked at 3.07 GiB, and
without at the first run's 1.79. Its arenas are left as they are: having none saved 0.04 GiB of that, and giving them
back after every run, or letting them grow by no more than is asked for, nothing (0.77 and 0.74 GiB beside 0.74, two
runs of 8 frames).
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
    """Run one clip once and print the core's seconds and peak bytes as JSON."""
    config = one_layer()
    n, width, k = config.tokens_per_frame, config.llm.hidden_size, config.reduction.temporal_pool
    step = chunk_frames(config)

    def session(name: str) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(folder / f"{name}.onnx", 1)

    def pieces() -> ChunkedTemporal:
        return ChunkedTemporal(
            [Layer(*(session(f"0.{p}") for p in ("enter", "states", "mix")))], session("pool"), config
        )

    whole = session("temporal")
    encoder = TemporalEncoder(whole, Pieces(pieces, config))
    if form != "whole":
        del whole
        encoder.in_chunks([np.zeros((step, n, width), np.float32)], step)  # the pieces are loaded
    clip = ClipTokens(HOST, k, frames, None if form == "whole" else LongClips(0, step, form))
    rng = np.random.default_rng(0)
    while clip.count < frames:  # as vision gives them
        clip.add(rng.standard_normal((VISION_BATCH, n, width), np.float32)[: frames - clip.count])
    begin = time.process_time()
    # The whole form is asked for by its session, whatever a pipeline would choose.
    if form == "whole":
        whole.run(tokens=clip.blocks()[0][None])
    else:
        encoder.in_chunks(clip.blocks(), step)
    print(json.dumps({"seconds": time.process_time() - begin, "peak": peak_memory_bytes()}))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 32, 128, 512])
    parser.add_argument("--whole", type=int, default=64, help="the most frames for the whole form")
    parser.add_argument("--graphs", type=Path, help="a folder to keep the graphs in, else they are made again")
    parser.add_argument("--results", type=Path, help="a file of figures; what is in it is not measured again")
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "FRAMES", "FORM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(Path(options.one[0]), int(options.one[1]), options.one[2])
        return
    known = json.loads(options.results.read_text()) if options.results and options.results.exists() else {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        graphs = options.graphs or Path(folder)
        if not (graphs / "pool.onnx").exists():
            make(graphs)
        for frames in options.frames:
            row = [str(frames)]
            for form in FORMS:
                if form == "whole" and frames > options.whole:
                    row.append("not run")
                    continue
                command = [sys.executable, __file__, "--one", str(graphs), str(frames), form]
                name = f"{frames} {form}"
                if name not in known:
                    known[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                    if options.results:
                        options.results.write_text(json.dumps(known))
                found = known[name]
                row.append(f"{found['seconds'] / frames:.2f} s, {found['peak'] / GIB:.2f} GiB")
                print(row, file=sys.stderr)
            rows.append(row)
    print(PAGE)
    print(f"| frames | {' | '.join(FORMS.values())} |\n{'|---' * (1 + len(FORMS))}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    found_on = examine()["machine"]
    print(f"\nOn {found_on['processor']}, {found_on['cores']} cores.")


if __name__ == "__main__":
    main()
