"""What is measured side by side: each row is a set of contestants that take turns, and can be run alone."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from prepare import ROOT, Workplace
from turns import Contestant

HERE = Path(__file__).parent
PEERS = ROOT / "build" / "bench-venv" / "bin" / "python"  # has llama.cpp and onnxruntime-genai beside this environment
FRAMES, TOKENS = 32, 16  # of a whole question
LENGTHS = (98, 196, 392, 784, 1568, 3136, 6272, 12544, 25088)  # of prompts, from 32 frames at 6.25% to 512 at all


@dataclass(frozen=True)
class Row:
    """One measurement. `tasks` are given to every contestant in every round; `full`: of `make bench-full` alone."""

    name: str
    contestants: tuple[Contestant, ...]
    tasks: tuple[str, ...]
    rounds: int = 3
    warm_up: bool = True
    full: bool = False


def rows(place: Workplace) -> list[Row]:
    """All of them, in the order of the page."""

    def storm(engine: str) -> Contestant:
        words = (sys.executable, str(HERE / "contestant.py"), "question", place.model, engine, str(TOKENS))
        return Contestant(f"storm {engine}", words)

    def torch(kind: str, *more: str) -> Contestant:
        reduction = place.config.reduction
        pools = ("--temporal-pool", str(reduction.temporal_pool), "--spatial-pool", str(reduction.spatial_pool))
        module = ("-m", "storm_edge.export.reference.asking", str(place.checkpoint), "--video", str(place.clip))
        words = (sys.executable, *module, *pools, "--tokens", str(TOKENS), "--type", kind, *more)
        return Contestant(f"PyTorch {kind}{' compiled' if more else ''}", words)

    def llm(name: str, *words: str) -> Contestant:
        python = str(PEERS) if words[0] in ("llama.cpp", "genai") else sys.executable
        kind, *rest = words
        return Contestant(name, (python, str(HERE / "contestant.py"), kind, place.model, *rest))

    int4 = llm("storm int4", "storm", "cpu-fp32-llm-int4")
    prompts = ("512 16", "2048 16")
    language = {
        "int4": (int4, llm("llama.cpp Q4_0", "llama.cpp", "Q4_0"), llm("onnxruntime-genai int4", "genai", "int4")),
        "int8": (llm("storm int8", "storm", "cpu-fp32-llm-int8"), llm("llama.cpp Q8_0", "llama.cpp", "Q8_0")),
        "floating": (
            llm("storm fp32", "storm", "cpu-fp32"),
            llm("transformers fp32", "transformers", "float32"),
            llm("llama.cpp F16", "llama.cpp", "F16"),
        ),
    }
    whole = (str(FRAMES),)
    found = [
        Row("question", (storm("cpu-fp32"), storm("cpu-fp32-llm-int4"), torch("float32")), whole, rounds=2),
        Row("question int8", (storm("cpu-int8-llm-int4"), torch("float32")), whole, rounds=2),
        Row("question compiled", (storm("cpu-fp32"), torch("float32", "--compile")), whole, rounds=2),
        Row("question bfloat16", (torch("bfloat16"),), whole, rounds=1, full=True),
    ]
    for bits, contestants in language.items():
        found += [Row(f"language {bits} {p.split()[0]}", contestants, (p,), full=p != prompts[0]) for p in prompts]
    for frames in (8, 32, 128, 256, 512):
        short = frames <= 128
        task = (str(frames),)
        found.append(
            Row(f"scaling {frames}", (storm("cpu-fp32-llm-int4"),), task, 3 if short else 1, short, full=not short)
        )
    for length in LENGTHS:
        short = length <= 3136
        found.append(Row(f"prefill {length}", (int4,), (f"{length} 0",), 3 if short else 1, short, full=not short))
    return found
