"""What TensorRT for RTX makes of the decoder's int4 layers, by its own layer list; prints Markdown for docs/llm.md.

    python benchmarks/int4_layers.py

The builder writes the list that its inspector would give, with detailed verbosity, into its log. So no GPU is needed,
as reading it out of an engine is. Nothing is run. Takes two GB of memory and disk.
"""

from __future__ import annotations

import importlib.metadata
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorrt_rtx as trt
from models import MODELS

from storm_edge.export.build.goal import Goal, judge
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import prepare
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.initialize import initialize
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target

SMS = (86, 89, 120)
_LAYER = re.compile(
    r"Name: .*?, LayerType: (?P<type>\w+), Inputs: .*?, Constants: (?P<constants>.*?), Outputs: (?P<outputs>.*),"
    r" TacticName: .*?, StreamId: \d+, Metadata: (?P<metadata>.*)"
)
_TENSOR = re.compile(r"Dimensions: (\[[^\]]*\])[^}]*?Datatype: (\w+)")


@dataclass(frozen=True)
class Layer:
    """A layer of an engine that has to do with int4 weights."""

    kind: str
    nodes: str
    constants: str
    outputs: str


class Log(trt.ILogger):  # type: ignore[misc]  # a class of the package
    """Keeps all that the builder says."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.messages: list[str] = []

    def log(self, _: Any, message: str) -> None:
        """Called by TensorRT."""
        self.messages.append(message)


def layers(graph: Path, goal: Goal, sm: int) -> list[Layer]:
    """The layers of an engine for one SM that hold int4 constants, or that multiply what another layer made of them."""
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    if not trt.OnnxParser(network, log).parse(graph.read_bytes(), str(graph)):
        raise SystemExit("\n".join(log.messages[-3:]))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), 0)
    profile = builder.create_optimization_profile()
    for name, shapes in goal.profiles["decoder"].items():
        profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
    config.add_optimization_profile(profile)
    if builder.build_serialized_network(network, config) is None:
        raise SystemExit("\n".join(log.messages[-3:]))
    [listed] = [m for m in log.messages if m.startswith("Layers:")]
    found = [match for line in listed.splitlines() if (match := _LAYER.match(line))]
    made = [
        Layer(
            match["type"],
            ", ".join(dict.fromkeys(re.findall(r"(\w+)\.(?:weight\.dequantized|matmul)", match["metadata"]))),
            ", ".join(f"{kind} {shape}" for shape, kind in _TENSOR.findall(match["constants"]) if kind != "Float"),
            ", ".join(f"{kind} {shape}" for shape, kind in _TENSOR.findall(match["outputs"])),
        )
        for match in found
        if "Int4" in match["constants"] or "proj.matmul" in match["metadata"]
    ]
    return made


def main() -> None:
    """Print a table a model; layers that are alike in all of its decoder are one row."""
    print(f"TensorRT for RTX {importlib.metadata.version('tensorrt-rtx')}, `python benchmarks/int4_layers.py`")
    for title, config in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            initialize(config, Path(folder) / "checkpoint")
            export_bundle(Path(folder) / "checkpoint", Path(folder) / "bundle")
            bundle = Bundle.open(Path(folder) / "bundle")
            options = BuildOptions(llm_precision="int4", stages=("decoder",), max_frames=32, max_length=1024)
            goal = judge(bundle, target("rtx"), options, probe())
            graphs, _ = prepare(bundle, goal)
            counted = {sm: Counter(layers(bundle.path(graphs["decoder"]), goal, sm)) for sm in SMS}
        print(f"\n{title}:\n\n| SM | layer type | of | constants | outputs | layers |\n|---|---|---|---|---|---|")
        alike = all(rows == counted[SMS[0]] for rows in counted.values())
        for name, rows in {", ".join(map(str, SMS)): counted[SMS[0]]}.items() if alike else counted.items():
            for layer, number in rows.items():
                print(f"| {name} | {layer.kind} | {layer.nodes} | {layer.constants} | {layer.outputs} | {number} |")


if __name__ == "__main__":
    main()
