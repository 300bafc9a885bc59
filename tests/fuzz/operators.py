"""Fuzz the native operators: their CPU kernels, ONNX Runtime's form of them, and the TensorRT plugin.

    python tests/fuzz/operators.py --seconds 60
    python tests/fuzz/operators.py --cases 2000

Builds what it needs under the sanitizers into build/fuzz, with Clang's libFuzzer where there is one and a driver of its
own elsewhere. Prints how the cases ended, from a seed; exit status 1 if a process died or a check failed. The plugin is
left out, and said so, where there are no headers of TensorRT and no nvcc.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storm_edge.plugins import libraries
from storm_edge.plugins.build import find_nvcc
from storm_edge.plugins.causal_conv1d.op import SCHEMA as CONV
from storm_edge.plugins.op_schema import Schema
from storm_edge.plugins.selective_scan.op import SCHEMA as SCAN

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("operator_worker.py")
LIMIT = 60.0  # seconds for one graph
SANITIZERS = "address,undefined"
TYPES = ("float32", "float16", "bfloat16", "float64", "int64", "bool", "string", "sequence")
LARGEST = (1 << 63) - 1


@dataclass(frozen=True)
class Budget:
    """How much to try: as many cases, or as many seconds; 0 is no limit."""

    seed: int
    cases: int
    seconds: float


def build(target: str, *flags: str) -> Path:
    """Compile a target under the sanitizers; returns the folder it is in."""
    clang = shutil.which("clang++") or shutil.which("clang++-14")
    chosen = [f"-DCMAKE_CXX_COMPILER={clang}", "-DSTORM_LIBFUZZER=ON"] if clang and not flags else []
    folder = ROOT / "build" / "fuzz" / ("clang" if chosen else "gcc") / target
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if cmake is None:
        raise SystemExit("error: there is no CMake: pip install cmake, or apt-get install cmake")
    configure = [cmake, "-S", str(ROOT / "plugins"), "-B", str(folder), "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    configure += ["-DSTORM_FUZZ=ON", "-DSTORM_ONNXRUNTIME=OFF", f"-DSTORM_SANITIZE={SANITIZERS}", *chosen, *flags]
    for command in (configure, [cmake, "--build", str(folder), "--target", target, "--parallel", "2"]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"error: {target} cannot be built:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return folder


def run_target(name: str, command: list[str], budget: Budget) -> list[str]:
    """Run a program until its budget is spent; prints its last line, returns what went wrong."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode:
        return [f"{name}, seed {budget.seed}: exit status {done.returncode}: {' | '.join(said[-40:])}"]
    print(f"{name}: {said[-1] if said else ''} in {time.perf_counter() - start:.0f} s", flush=True)
    return []


def fuzz_kernels(budget: Budget) -> list[str]:
    """The kernels' C API and the checks of arguments."""
    folder = build("storm_cpu_fuzz")
    program = str(folder / "storm_cpu_fuzz")
    if folder.parent.name == "clang":
        limits = [f"-seed={budget.seed + 1}", f"-runs={budget.cases or -1}", f"-max_total_time={int(budget.seconds)}"]
        return run_target("kernels", [program, *limits, "-max_len=2048", "-print_final_stats=1"], budget)
    return run_target("kernels", [program, str(budget.seed), str(budget.cases), str(budget.seconds)], budget)


def fuzz_plugin(budget: Budget) -> list[str]:
    """The TensorRT plugin, driven as TensorRT would."""
    headers, nvcc = os.environ.get("TENSORRT_ROOT", ""), find_nvcc()
    if not headers or nvcc is None:
        print("plugin: left out: set TENSORRT_ROOT to an unpacked TensorRT, on a machine with nvcc", flush=True)
        return []
    flags = ["-DSTORM_CUDA=ON", "-DSTORM_TENSORRT=ON", f"-DTENSORRT_ROOT={headers}", f"-DCMAKE_CUDA_COMPILER={nvcc}"]
    folder = build("storm_tensorrt_fuzz", *flags, "-DSTORM_CUDA_ARCHITECTURES=80")
    command = [str(folder / "storm_tensorrt_fuzz"), str(folder / libraries.TENSORRT)]
    return run_target("plugin", [*command, str(budget.seed), str(budget.cases), str(budget.seconds)], budget)


def random_graph(rng: random.Random) -> dict[str, Any]:
    """A sound graph with up to three things changed; see operator_worker.py for its form."""
    schema: Schema = rng.choice((SCAN, CONV))
    sizes = {axis: rng.randint(1, 6) for axis in ("batch", "length", "channels", "state")}
    sizes["width"] = rng.randint(2, 6)
    sizes[rng.choice(list(sizes))] = rng.choice((2, 3, 33, 64, 200))
    dtype = rng.choice(TYPES[:3])

    def size(axis: str) -> int:
        name, _, less = axis.partition("-")
        return sizes[name] - int(less or 0)

    inputs: list[dict[str, Any] | None] = [
        {"name": v.name, "type": dtype if v.type == "T" else v.type, "shape": [size(a) for a in v.axes]}
        for v in schema.inputs
    ]
    case: dict[str, Any] = {
        "op": schema.name,
        "inputs": inputs,
        "outputs": [value.name for value in schema.outputs],
        "attributes": schema.attributes(rng.random() < 0.5),
        "declared": rng.choice(("shape", "nothing")),
        "run": True,
    }
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        change(case, rng)
    return case


def change(case: dict[str, Any], rng: random.Random) -> None:
    """Change one thing of a graph."""
    inputs, attributes = case["inputs"], case["attributes"]
    kind = rng.choice(("size", "size", "size", "rank", "type", "drop", "gap", "more", "outputs", "attribute", "huge"))
    present = [value for value in inputs if value is not None]
    if kind == "attribute":
        name = rng.choice(("reverse", "plugin_version", "plugin_namespace", "other"))
        attributes.pop(name, None)
        if rng.random() < 0.8:
            attributes[name] = rng.choice((0, 1, 2, -1, LARGEST, 0.5, "", "1", "storm", "x" * 9999, [1, 2], ["a"]))
    elif kind == "outputs":
        case["outputs"] = rng.choice((["y"], ["final_state"], ["", "final_state"], ["y", "a", "b"], ["y", ""]))
    elif kind == "more" and inputs:
        inputs.extend([inputs[0]] * rng.randint(1, 30))
    elif kind == "drop":
        del inputs[rng.randrange(len(inputs) + 1) :]
    elif kind == "gap" and inputs:
        inputs[rng.randrange(len(inputs))] = None
    elif present and kind == "type":
        rng.choice(present)["type"] = rng.choice(TYPES)
    elif present and kind == "rank":
        value = rng.choice(present)
        value["shape"] = [rng.randint(0, 3) for _ in range(rng.choice((0, 1, 2, 3, 4, 9)))]
    elif present and (value := rng.choice(present))["shape"]:
        axis = rng.randrange(len(value["shape"]))
        if kind == "huge":  # only said, never made
            value["shape"] = list(value["shape"])
            value["shape"][axis] = rng.choice((LARGEST, LARGEST - 1, 1 << 31, 1 << 40, 1 << 62))
            case["declared"], case["run"] = "shape", False
        else:
            value["shape"][axis] = rng.choice((0, 1, 2, 3, 255, 256, 257, 4096))


class Worker:
    """A process that loads and runs graphs one by one."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start, or start again."""
        command = [sys.executable, str(WORKER)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)

    def run(self, case: dict[str, Any]) -> dict[str, str]:
        """What came of a case; the end of the process, or of its time, is an outcome of its own."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(case) + "\n")
        stdin.flush()
        ready, _, _ = select.select([stdout], [], [], LIMIT)
        line = stdout.readline() if ready else ""
        if line:
            result: dict[str, str] = json.loads(line)
            return result
        self.process.kill()
        code = self.process.wait()
        self.start()
        return {"outcome": "died" if ready else "hung", "words": f"exit status {code}"}

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def fuzz_graphs(budget: Budget) -> list[str]:
    """Random graphs through ONNX Runtime, with the library as it is built for use."""
    if libraries.find_library(libraries.ONNXRUNTIME) is None:
        print(f"graphs: left out: {libraries.ONNXRUNTIME} is not built: run `{libraries.build_command()}`", flush=True)
        return []
    counts: Counter[str] = Counter()
    failures: list[str] = []
    worker, start, number = Worker(), time.perf_counter(), 0
    while not (0 < budget.cases <= number or 0 < budget.seconds <= time.perf_counter() - start):
        case = random_graph(random.Random(f"graph {budget.seed} {number}"))
        result = worker.run(case)
        counts[result["outcome"]] += 1
        if result["outcome"] in ("died", "hung"):
            failures.append(f"graph {number}, seed {budget.seed}: {result['words']}: {json.dumps(case)[:2000]}")
        number += 1
    worker.close()
    ends = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    print(f"graphs: {number} cases: {ends} in {time.perf_counter() - start:.0f} s", flush=True)
    return failures


KINDS = {"kernels": fuzz_kernels, "graphs": fuzz_graphs, "plugin": fuzz_plugin}


def main() -> int:
    """Run every kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--seconds", type=float, default=0, help="for all kinds together, after building; default: 60")
    limit.add_argument("--cases", type=int, default=0, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS, help="one kind")
    given = parser.parse_args()
    kinds = [given.only] if given.only else list(KINDS)
    seconds = 0.0 if given.cases else (given.seconds or 60.0) / len(kinds)
    failures = [line for kind in kinds for line in KINDS[kind](Budget(given.seed, given.cases, seconds))]
    for failure in failures:
        print(f"FAILED {failure}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
