"""Write a TensorRT-LLM checkpoint of a full-size language model with random weights, and verify every shard.

    python benchmarks/llm_checkpoint.py storm-7b FOLDER --precision bf16 int4 [--tp 2]

FOLDER needs room for the bundle's decoder and one checkpoint (31 GB for storm-7b); both are deleted at the end. Prints
time, peak resident memory (mapped files included) and size of every checkpoint. The numpy reader of the tests, which is
written from the format's rules, puts all ranks together and compares them with what went in: bf16 and fp16 bit for bit,
int8 too (its loader rounds), int4 within half a step of what was not cut off.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import ml_dtypes
import numpy as np

from storm_edge.export.build.tensorrt_llm.checkpoint import write_checkpoint
from storm_edge.export.checkpoint.shapes import language_shapes
from storm_edge.export.checkpoint.weights import LazyTensor, Weights, write_safetensors
from storm_edge.export.trace.decoder import compose_decoder
from storm_edge.export.trace.embedding import write_embedding
from storm_edge.runtime.bundle.manifest import Bundle, FileSpec, GraphSpec, Manifest
from storm_edge.runtime.config.presets import preset

READER = Path(__file__).parents[1] / "tests" / "export" / "build" / "tensorrt_llm" / "reader.py"
FILES = ("decoder.onnx", "decoder.data", "embedding.safetensors")
POOL = 1 << 24  # normal numbers, out of which every tensor is cut: drawing billions would take longer than writing them
Array = np.ndarray[Any, Any]


def random_tensor(name: str, shape: tuple[int, ...]) -> Array:
    """bfloat16 numbers that depend on the name."""
    return np.resize(np.roll(pool(), -(crc32(name.encode()) % POOL)), shape)


@cache
def pool() -> Array:
    """What tensors are cut out of."""
    return (np.random.default_rng(0).standard_normal(POOL, dtype=np.float32) * 0.02).astype(ml_dtypes.bfloat16)


def make_bundle(name: str, root: Path) -> Bundle:
    """A bundle that holds the decoder of a preset, random, in bfloat16, and nothing else."""
    config = preset(name)
    source = root / "llm"
    (root / "bundle" / "graphs").mkdir(parents=True)
    source.mkdir()
    write_safetensors(source / "model.safetensors", tensors(name))
    with Weights.open(source) as weights:
        compose_decoder(config.llm, weights, "bfloat16").save(root / "bundle/graphs/decoder.onnx", "decoder.data")
        write_embedding(weights, root / "bundle/graphs/embedding.safetensors")
    shutil.rmtree(source)
    return open_bundle(name, root)


def open_bundle(name: str, root: Path) -> Bundle:
    """The bundle made before."""
    manifest = Manifest.model_construct(  # all that is read of it
        schema_version=1,
        config=preset(name),
        dtype="bfloat16",
        graphs={
            "decoder": GraphSpec(
                file="graphs/decoder.onnx", data="graphs/decoder.data", opset=24, inputs=[], outputs=[]
            )
        },
        embedding="graphs/embedding.safetensors",
        tokenizer="",
        clips=[],
        operators={},
        checkpoint_sha256="",
        versions={},
        files={f"graphs/{name}": FileSpec(size=0, sha256="0" * 64) for name in FILES},
    )
    return Bundle(root / "bundle", manifest, "0" * 64)


def tensors(name: str) -> dict[str, LazyTensor]:
    """All tensors of a preset's language model, drawn when they are read."""
    kind = np.dtype(ml_dtypes.bfloat16)
    shapes = language_shapes(preset(name).llm)
    return {n: LazyTensor(kind, s, lambda n=n, s=s: random_tensor(n, s)) for n, s in shapes.items()}  # type: ignore[misc]


def write(name: str, root: Path, precision: str, tp: int) -> None:
    """Write one checkpoint, and print time, memory and size as JSON."""
    out = root / "checkpoint"
    out.mkdir()
    bundle = open_bundle(name, root)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    write_checkpoint(bundle, out, precision, tp)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = sum(p.stat().st_size for p in out.iterdir())
    print(json.dumps({"seconds": seconds, "peak": peak * 1024, "before": before * 1024, "bytes": size}))


def verify(name: str, root: Path, precision: str) -> str:
    """Compare all that the ranks hold with what went in; raises AssertionError where they differ."""
    spec = importlib.util.spec_from_file_location("reader", READER)
    assert spec is not None
    assert spec.loader is not None
    reader: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    made = reader.Checkpoint(root / "checkpoint")
    made.check()
    wanted, cut, total = tensors(name), 0, 0
    for i in range(made.config["num_hidden_layers"]):
        for part, tensor in made.whole(i).items():
            exact = wanted[f"model.layers.{i}.{part}"].read()
            if precision != "int4" or tensor.dtype == exact.dtype:
                assert np.array_equal(tensor, exact), part
                continue
            blocks = exact.astype(np.float32).reshape(len(exact), -1, 128)
            step = np.abs(blocks).max(axis=2, keepdims=True) / 7 * 1.01  # the coarsest of the scales
            off = np.abs(tensor.reshape(blocks.shape) - blocks) / step
            cut, total = cut + int((off > 0.51).sum()), total + off.size
            assert off.max() < 2.1
    table = wanted["model.embed_tokens.weight"].read()
    assert np.array_equal(made.same_on_all("transformer.vocab_embedding.weight"), table)
    assert np.array_equal(made.head_matrix(), wanted["lm_head.weight"].read() if "lm_head.weight" in wanted else table)
    return f"{cut / total:.2%} cut off" if total else "bit-equal"


def main() -> None:
    """Make the bundle, and for every precision write, verify and delete a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", nargs="+", default=["bf16", "int4"])
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        write(given.preset, given.folder, given.precision[0], given.tp)
        return
    given.folder.mkdir()
    try:
        make_bundle(given.preset, given.folder)
        largest = max(t.nbytes for t in tensors(given.preset).values())
        print(f"largest tensor {largest / 2**30:.2f} GiB")
        print("| precision | ranks | seconds | peak memory | size | read back |\n|---|---|---|---|---|---|")
        for precision in given.precision:
            words = [given.preset, str(given.folder), "--precision", precision, "--tp", str(given.tp), "--child"]
            ran = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
            found = json.loads(ran.stdout)
            figures = f"{found['seconds']:.0f} | {found['peak'] / 2**30:.2f} GiB | {found['bytes'] / 1e9:.2f} GB"
            read_back = verify(given.preset, given.folder, precision)
            print(f"| {precision} | {given.tp} | {figures} | {read_back} |", flush=True)
            shutil.rmtree(given.folder / "checkpoint")
    finally:
        shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
