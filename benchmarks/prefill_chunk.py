"""How long ONNX Runtime's CPU takes for a prompt, by the tokens it computes at once; prints Markdown for docs/llm.md.

    storm build BUNDLE --target cpu --llm-precision int4
    python benchmarks/prefill_chunk.py BUNDLE cpu-fp32-llm-int4

The least of three runs, in turns, so that a busy machine spoils none of the sizes alone.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from storm_edge.runtime.bundle.engine import read_engine
from storm_edge.runtime.bundle.engine_graphs import engine_graph
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.onnxruntime import OnnxRuntimeDecoder

CHUNKS = (64, 128, 256, 512, 1024)
TOKENS = 1024
RUNS = 3


def main() -> None:
    """Print the table."""
    bundle = Bundle.open(Path(sys.argv[1]))
    record = read_engine(bundle, sys.argv[2])
    table = EmbeddingTable.open(bundle.file(bundle.manifest.embedding))
    graph, llm = engine_graph(bundle, record, "decoder"), bundle.config.llm
    embeds = np.random.default_rng(0).normal(0, 0.5, (TOKENS, llm.hidden_size)).astype(np.float32)
    seconds: dict[int, float] = {}
    for _ in range(RUNS):
        for chunk in CHUNKS:
            model = OnnxRuntimeDecoder(graph, llm, table, TOKENS + 1, chunk)
            model.append(embeds[:chunk])  # the session's first run allocates
            model.rewind(0)
            start = time.perf_counter()
            model.append(embeds)
            seconds[chunk] = min(time.perf_counter() - start, seconds.get(chunk, np.inf))
    print("| tokens at once | seconds | tokens a second |\n|---|---|---|")
    for chunk, taken in seconds.items():
        print(f"| {chunk} | {taken:.2f} | {TOKENS / taken:.0f} |")


if __name__ == "__main__":
    main()
