"""One engine to compile, and what came of it: the two JSON files between the builder and its child process."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from storm_edge.runtime.bundle.engine import FoundLayers, ProfileShapes

Failure = Literal["memory", "plugin", "tactic", "type", "unused input", "parse", "build", "missing package", "disk"]


class CompileJob(BaseModel):
    """What to compile. `compute_capabilities`: SMs (89 for 8.9) of GPUs that are not there; none: of this one.

    `profiles` are the optimization profiles in the engine's order, each by input; `workspace_bytes` limits the scratch
    memory of a kernel, `tactic_bytes` what the builder takes in all while it times them. `captured`: runs of the engine
    become CUDA graphs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str  # the TensorRT to import
    graph: str
    engine: str
    profiles: list[dict[str, ProfileShapes]]
    plugins: list[str] = []
    compute_capabilities: list[int] = []
    workspace_bytes: int | None = None
    tactic_bytes: int | None = None
    timing_cache: str | None = None
    captured: bool = False


class CompileResult(BaseModel):
    """What came of it: a failure with the builder's own words, or figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str = ""
    failure: Failure | None = None
    message: str = ""
    seconds: float = 0.0
    engine_bytes: int = 0
    peak_memory_bytes: int = 0
    activation_bytes: int = 0  # what a context of the engine takes on the device, as the builder says
    layers: FoundLayers = FoundLayers()
