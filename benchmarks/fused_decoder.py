"""The two forms of the decoder on a CPU, standard ONNX and GroupQueryAttention: distances and times, as Markdown.

    python benchmarks/fused_decoder.py                     Qwen2-0.5B's widths, 4 of its 24 layers; some minutes, 4 GB
    python benchmarks/fused_decoder.py --layers 24

Random weights, and no head but one of 4,096 tokens: times are of the layers. ONNX Runtime's 4 and 8 bit kernels round
what they read to 8 bits as well ("level 4"); "level 1" is the same weights with activations in float32, which tells
what the form of the graph changes from what that rounding does. All forms take turns; the least of the rounds counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storm_edge.export.build.steps import nbits_steps
from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.graph_file import load_model, save_model
from storm_edge.export.initialize import initialize
from storm_edge.export.passes.fuse_decoder import fuse_decoder
from storm_edge.export.trace.decoder import compose_decoder
from storm_edge.export.trace.embedding import write_embedding
from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.schema import LanguageConfig
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.onnxruntime import OnnxRuntimeDecoder
from storm_edge.runtime.proof.figures import difference

Float32 = NDArray[np.float32]
PRECISIONS = {"fp32": (None, 0), "int8": (8, 4), "int8, level 1": (8, 1), "int4": (4, 4), "int4, level 1": (4, 1)}
FORMS = ("standard", "fused")
PROMPT, POSITIONS = 512, (600, 3000)
STEPS = 16  # tokens of an answer


def widths(layers: int) -> LanguageConfig:
    """Qwen2-0.5B's language model with so many layers and a small vocabulary."""
    return LanguageConfig(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=layers,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=4096,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )


def graphs(folder: Path, llm: LanguageConfig) -> Iterator[tuple[tuple[str, str], Path]]:
    """Every form of the decoder of a random checkpoint, by precision and form; the embedding table lies beside them."""
    initialize(preset("storm-mini").model_copy(update={"llm": llm}), folder / "checkpoint")
    weights = Checkpoint.open(folder / "checkpoint").llm
    compose_decoder(llm, weights, "float32").save(folder / "decoder.onnx", "decoder.data")
    write_embedding(weights, folder / "embedding.safetensors")
    for precision, (bits, level) in PRECISIONS.items():
        for form in FORMS:
            loaded = load_model(folder / "decoder.onnx")
            readers = dict(loaded.tensors)
            for step in nbits_steps(bits, 128) if bits else ():
                step.apply(loaded.model, readers)
            for node in loaded.model.graph.node:
                for attribute in node.attribute:
                    if attribute.name == "accuracy_level":
                        attribute.i = level
            if form == "fused":
                fuse_decoder(loaded.model, llm, llm.max_position_embeddings)
            path = folder / f"{bits}.{level}.{form}.onnx"
            save_model(loaded.model, path, f"{path.stem}.data", readers)
            yield (precision, form), path


def logits(model: OnnxRuntimeDecoder, prompt: Float32, answer: Float32) -> Float32:
    """Logits (1 + STEPS, vocabulary) after a prompt, and after each embedding that follows it."""
    model.rewind(0)
    return np.stack([model.append(prompt), *(model.append(row[None]) for row in answer)])


def seconds(model: OnnxRuntimeDecoder, rows: Float32) -> tuple[float, list[float]]:
    """Of a prompt, and of a token at each of POSITIONS."""
    model.rewind(0)
    begun = time.perf_counter()
    model.append(rows[:PROMPT])
    prefill, tokens = time.perf_counter() - begun, []
    for position in POSITIONS:
        model.append(rows[model.position : position])
        begun = time.perf_counter()
        for step in range(STEPS):
            model.append(rows[step : step + 1])
        tokens.append((time.perf_counter() - begun) / STEPS)
    return prefill, tokens


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    llm = widths(given.layers)
    rows = np.random.default_rng(0).normal(0, 1, (max(POSITIONS) + 1, llm.hidden_size)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = dict(graphs(folder, llm))
        table = EmbeddingTable.open(folder / "embedding.safetensors")
        models = {key: OnnxRuntimeDecoder(path, llm, table, llm.max_position_embeddings) for key, path in paths.items()}
        made = {key: logits(model, rows[:300], rows[300 : 300 + STEPS]) for key, model in models.items()}
        moved = rows[: 300 + STEPS] * np.float32(1 + 1e-6)
        print("| precision | fused against standard | standard, inputs moved by 1e-6 | rounding activations |")
        print("|---|---|---|---|")
        for precision in PRECISIONS:
            standard = made[precision, "standard"]
            found = [difference(made[precision, "fused"], standard)]
            found += [difference(logits(models[precision, "standard"], moved[:300], moved[300:]), standard)]
            exact = made.get((f"{precision}, level 1", "standard"))
            found += [difference(standard, exact)] if exact is not None else []
            print(f"| {precision} | {' | '.join(f'{1 - d.cosine:.1e}' for d in found)} |")
        measured: dict[tuple[str, str], list[float]] = {}
        for _ in range(given.rounds):
            for key in [key for key in models if "level" not in key[0]]:
                prefill, tokens = seconds(models[key], rows)
                now = [prefill, *tokens]
                measured[key] = [min(pair) for pair in zip(now, measured.get(key, now), strict=True)]
    heads = " | ".join(f"a token at {position}, ms" for position in POSITIONS)
    print(f"\n| precision, form | prefill of {PROMPT}, s | {heads} |\n|---|---|{'---|' * len(POSITIONS)}")
    for (precision, form), (prefill, *tokens) in measured.items():
        print(f"| {precision}, {form} | {prefill:.2f} | {' | '.join(f'{1000 * t:.1f}' for t in tokens)} |")


if __name__ == "__main__":
    main()
