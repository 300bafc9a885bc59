"""The kernels of ONNX Runtime's CUDA provider for the operators that graphs of ours are made of, as JSON.

    python benchmarks/cuda_kernels.py > export/build/onnxruntime/cuda_kernels.json

Asks the installed onnxruntime-gpu, whose CUDA provider must load, what the list in its docs/OperatorKernels.md is made
from. Constraints are named as there; "last" is null for a kernel of every later opset.
"""

from __future__ import annotations

import json
from typing import Any

from onnxruntime.capi import onnxruntime_pybind11_state as state

from storm_edge.export.build.onnxruntime.kernels import FIRST_OPSET, PROVIDER
from storm_edge.runtime.bundle.graphs import CONTRIBUTED, OPERATORS

_FOREVER = 2**31 - 1


def kernels() -> dict[str, list[dict[str, Any]]]:
    """Operator -> kernels by opset; those that differ in one constraint's types are one."""
    wanted = {*OPERATORS[""], *CONTRIBUTED, *(f"com.microsoft::{name}" for name in OPERATORS["com.microsoft"])}
    found: dict[tuple[str, int, int], dict[str, set[str]]] = {}
    for kernel in state.get_all_opkernel_def():
        first, last = kernel.version_range
        name = f"{kernel.domain}::{kernel.op_name}" if kernel.domain else kernel.op_name
        if kernel.provider == PROVIDER and name in wanted and last >= (1 if kernel.domain else FIRST_OPSET):
            types = found.setdefault((name, first, last), {})
            for constraint, names in kernel.type_constraints.items():
                types.setdefault(constraint, set()).update(n.removeprefix("tensor(").removesuffix(")") for n in names)
    table: dict[str, list[dict[str, Any]]] = {}
    for (name, first, last), types in sorted(found.items()):
        row = {"first": first, "last": None if last == _FOREVER else last}
        table.setdefault(name, []).append(row | {"types": {key: sorted(types[key]) for key in sorted(types)}})
    return table


def main() -> None:
    """Print a line an operator."""
    import onnxruntime

    version = onnxruntime.__version__
    lines = [f"    {json.dumps(name)}: {json.dumps(rows)}" for name, rows in kernels().items()]
    source = f"onnxruntime-gpu {version}, get_all_opkernel_def(), by benchmarks/cuda_kernels.py"
    head = f'  "source": {json.dumps(source)},\n  "version": {json.dumps(version)},\n  "kernels": {{\n'
    print("{\n" + head + ",\n".join(lines) + "\n  }\n}")


if __name__ == "__main__":
    main()
