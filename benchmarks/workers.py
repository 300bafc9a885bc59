"""What workers that share weights cost in memory: peak resident set of a process with 1, 2 and 4 of them.

    python benchmarks/workers.py FOLDER

Makes a bundle of some 450 MB of fp32 weights in FOLDER unless it is there. Every worker answers a question about a
clip of its own, all at once; beside it the same with a bundle loaded once for each.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.initialize import initialize
from storm_edge.runtime import SamplingOptions, load
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.machine.memory import peak_memory_bytes
from storm_edge.runtime.machine.targets import target

WIDER = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
}
FRAMES = 32


def make(folder: Path) -> None:
    """A checkpoint, its bundle and its engine."""
    mini = preset("storm-mini")
    config = mini.model_copy(update={"llm": mini.llm.model_copy(update=WIDER)})
    initialize(config, folder / "checkpoint")
    export_bundle(folder / "checkpoint", folder / "bundle")
    build(Bundle.open(folder / "bundle"), target("cpu"), BuildOptions())


def measure(bundle: Path, count: int, shared: bool) -> None:
    """Answer with `count` pipelines at once, and print the peak and the time of the answers."""
    first = load(bundle, threads=1)
    others = (first.worker() if shared else load(bundle, threads=1) for _ in range(count - 1))
    pipelines = [first, *others]
    clip = np.random.default_rng(0).integers(0, 256, (FRAMES, 64, 64, 3), dtype=np.uint8)
    start = time.perf_counter()
    with ThreadPoolExecutor(count) as threads:
        options = SamplingOptions(max_tokens=16)
        list(threads.map(lambda pipeline: pipeline.open(clip).ask("What happens?", options).read(), pipelines))
    print(f"{peak_memory_bytes() / 2**20:.0f} MiB | {time.perf_counter() - start:.1f} s")


def main() -> None:
    """Print the table, or, as its own child, one of its cells."""
    bundle = Path(sys.argv[1]) / "bundle"
    if len(sys.argv) == 4:
        measure(bundle, int(sys.argv[2]), sys.argv[3] == "shared")
        return
    if not bundle.exists():
        make(bundle.parent)
    graphs = sum(path.stat().st_size for path in (bundle / "graphs").iterdir())
    print(f"{graphs / 2**20:.0f} MiB of graphs, {FRAMES} frames, one thread each\n")
    print("| pipelines | workers | answers | loaded each | answers |\n|---|---|---|---|---|")
    for count in (1, 2, 4):
        cells = [
            subprocess.run(
                [sys.executable, __file__, sys.argv[1], str(count), how], capture_output=True, text=True, check=True
            ).stdout.strip()
            for how in ("shared", "apart")
        ]
        print(f"| {count} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
