"""What this machine's matrix products reach, by shape and kernel: GFLOP/s of ONNX Runtime's, beside NumPy's; Markdown.

    python benchmarks/gemm_shapes.py

The shapes are those of storm-7b's vision tower (two frames of 1,024 patches, 1,152 channels) and of Qwen2-0.5B's
decoder (a prompt's 256 tokens, 896 channels). Kernels that run in engines: fp32; int8 with Q/DQ, exact on processors
without VNNI (`session.x64quantprecision`); MatMulNBits with 8 and 4 bits. They take turns, and the fastest counts.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from storm_edge.runtime.machine.doctor import examine

SHAPES = {
    "vision, attention": (2048, 1152, 1152),
    "vision, MLP": (2048, 1152, 4304),
    "decoder, attention": (256, 896, 896),
    "decoder, MLP": (256, 896, 4864),
}
BLOCK = 128


def session(nodes: list[Any], initializers: dict[str, np.ndarray[Any, Any]], k: int) -> Callable[..., Any]:
    """What runs a graph from x (rows, k) to y."""
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    made = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: made.run(["y"], {"x": x})[0]


def float32(weight: np.ndarray[Any, Any]) -> Callable[..., Any]:
    """One MatMul."""
    return session([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, len(weight))


def int8(weight: np.ndarray[Any, Any]) -> Callable[..., Any]:
    """A uint8 input and a weight with a scale for each output, as encoders' engines have them."""
    scale = (np.abs(weight).max(0) / 127).astype(np.float32)
    values = {
        "w": np.rint(weight / scale).astype(np.int8),
        "w.scale": scale,
        "w.zero": np.zeros(len(scale), np.int8),
        "x.scale": np.array(8 / 255, np.float32),
        "x.zero": np.array(128, np.uint8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x.scale", "x.zero"], ["x.q"]),
        helper.make_node("DequantizeLinear", ["x.q", "x.scale", "x.zero"], ["x.d"]),
        helper.make_node("DequantizeLinear", ["w", "w.scale", "w.zero"], ["w.d"], axis=1),
        helper.make_node("MatMul", ["x.d", "w.d"], ["y"]),
    ]
    return session(nodes, values, len(weight))


def nbits(weight: np.ndarray[Any, Any], bits: int) -> Callable[..., Any]:
    """MatMulNBits of random integers, with activations rounded to 8 bits inside."""
    k, n = weight.shape
    rng, blocks = np.random.default_rng(0), -(-k // BLOCK)
    values = {
        "w": rng.integers(0, 256, (n, blocks, BLOCK * bits // 8), np.uint8),
        "s": np.full((n, blocks), 0.01, np.float32),
    }
    sizes = {"K": k, "N": n, "bits": bits, "block_size": BLOCK, "accuracy_level": 4}
    return session(
        [helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **sizes)], values, k
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    machine = examine()["machine"]
    print(
        f"{datetime.date.today()}, {machine['processor']}, {machine['cores']} cores, ONNX Runtime {ort.__version__}.\n"
    )
    names = ["NumPy fp32", "fp32", "int8, Q/DQ", "8 bits, MatMulNBits", "4 bits, MatMulNBits"]
    print(f"| shape | {' | '.join(names)} |\n|---|{'---|' * len(names)}", flush=True)
    for title, (m, k, n) in SHAPES.items():
        rng = np.random.default_rng(0)
        x, weight = (rng.standard_normal(shape, dtype=np.float32) for shape in ((m, k), (k, n)))
        forms: list[Callable[..., Any]] = [
            lambda x, weight=weight: x @ weight,
            float32(weight),
            int8(weight),
            nbits(weight, 8),
            nbits(weight, 4),
        ]
        least = [float("inf")] * len(forms)
        for _ in range(rounds + 1):
            for i, form in enumerate(forms):
                begun = time.perf_counter()
                form(x)
                least[i] = min(least[i], time.perf_counter() - begun)
        print(f"| {title}, {m} x {k} x {n} | {' | '.join(f'{2e-9 * m * k * n / t:.0f}' for t in least)} |", flush=True)


if __name__ == "__main__":
    main()
