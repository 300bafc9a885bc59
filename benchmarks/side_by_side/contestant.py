"""One contestant: `python contestant.py KIND ...`, a peer that answers tasks on stdin (see runtime/bench/peer.py).

    question MODEL ENGINE TOKENS      task: frames           a whole question about the clip, the fields of a Run
    storm MODEL ENGINE                task: "512 16"         prefill of 512 tokens, then 16 tokens one by one
    transformers MODEL TYPE           the same
    llama.cpp MODEL FORM              the same; FORM is F16, Q8_0 or Q4_0
    genai MODEL FORM                  the same; FORM is fp32 or int4

Language models are given tokens, not embeddings: the rows of a table are copied either way.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from prepare import Workplace

from storm_edge.runtime.machine.memory import peak_memory_bytes, reset_peak_memory

Answer = Callable[[str], dict[str, Any]]
Prefill = Callable[[list[int]], None]
Step = Callable[[int], None]


def question(place: Workplace, engine: str, tokens: str) -> Answer:
    """This project, from a video file to the answer."""
    from storm_edge.runtime import load
    from storm_edge.runtime.bench import ask_engine

    pipeline = load(place.bundle, engine, trust_engines=True)  # the bundle is this report's own
    return lambda task: asdict(ask_engine(pipeline, place.clip, int(tokens), int(task)))


def storm(place: Workplace, engine: str) -> Answer:
    """This project's language model."""
    from storm_edge.runtime.bundle.engine import read_engine
    from storm_edge.runtime.bundle.manifest import Bundle
    from storm_edge.runtime.llm.onnxruntime import open_generator
    from storm_edge.runtime.sessions.device import HOST

    bundle = Bundle.open(place.bundle)
    generator: Any = open_generator(bundle, read_engine(bundle, engine), HOST, None)
    model = generator.model

    def prefill(ids: list[int]) -> None:
        model.rewind(0)
        model.append(model.embed(ids)).argmax()

    return language(prefill, lambda token: model.append(model.embed([token])).argmax())


def transformers(place: Workplace, kind: str) -> Answer:
    """PyTorch's, eager, with scaled_dot_product_attention."""
    import torch
    from transformers import DynamicCache

    from storm_edge.export.checkpoint.folder import Checkpoint
    from storm_edge.export.network.language import load_language_model

    model: Any = load_language_model(Checkpoint.open(place.checkpoint)).to(getattr(torch, kind))
    cache = DynamicCache()

    def step(ids: list[int]) -> None:
        with torch.inference_mode():
            found = model(torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        found.logits[0, -1].argmax().item()

    def prefill(ids: list[int]) -> None:
        nonlocal cache
        cache = DynamicCache()
        step(ids)

    return language(prefill, lambda token: step([token]))


def llama_cpp(place: Workplace, form: str) -> Answer:
    """llama.cpp by llama-cpp-python, with as many threads as there are cores."""
    from llama_cpp import Llama

    threads = len(os.sched_getaffinity(0))
    model = Llama(
        str(place.gguf / f"{form}.gguf"),
        n_ctx=4096,
        n_batch=512,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )

    def prefill(ids: list[int]) -> None:
        model.reset()
        model.eval(ids)

    return language(prefill, lambda token: model.eval([token]))


def genai(place: Workplace, form: str) -> Answer:
    """onnxruntime-genai's generator, its tokens forced as the others' are."""
    import onnxruntime_genai as og

    model = og.Model(str(place.genai / form))
    generator: Any = None

    def prefill(ids: list[int]) -> None:
        nonlocal generator
        options = og.GeneratorParams(model)
        options.set_search_options(max_length=4096, do_sample=False)
        generator = og.Generator(model, options)
        generator.append_tokens(np.array([ids], np.int32))
        generator.get_logits()

    def step(token: int) -> None:
        generator.append_tokens(np.array([[token]], np.int32))
        generator.get_logits()

    return language(prefill, step)


def language(prefill: Prefill, step: Step) -> Answer:
    """Times a prompt of random tokens and tokens after it."""
    rng = np.random.default_rng(0)

    def answer(task: str) -> dict[str, Any]:
        length, tokens = (int(word) for word in task.split())
        ids = rng.integers(300, 4000, length + tokens).tolist()
        reset_peak_memory()
        start = time.perf_counter()
        prefill(ids[:length])
        found = {"prefill": time.perf_counter() - start}
        each = []
        for token in ids[length:]:
            start = time.perf_counter()
            step(token)
            each.append(time.perf_counter() - start)
        found |= {"decode": statistics.median(each)} if each else {}
        return found | {"peak_memory_bytes": peak_memory_bytes()}

    return answer


KINDS = {"question": question, "storm": storm, "transformers": transformers, "llama.cpp": llama_cpp, "genai": genai}


def main() -> None:
    """Answer until stdin ends."""
    answers, sys.stdout = sys.stdout, sys.stderr
    kind, model, *words = sys.argv[1:]
    answer = KINDS[kind](Workplace.of(model), *words)
    print("{}", file=answers, flush=True)
    for task in sys.stdin:
        print(json.dumps(answer(task.strip())), file=answers, flush=True)


if __name__ == "__main__":
    main()
