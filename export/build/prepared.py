"""The prepared form of an engine: the graphs that a machine with onnx makes, and a device takes as they are."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import replace

from storm_edge.export.build.device_command import device_command
from storm_edge.export.build.goal import Goal
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.publish import RELEASE, Progress
from storm_edge.runtime.bundle.engine import EngineRecord, read_engine
from storm_edge.runtime.bundle.manifest import Bundle, FileSpec, Stage
from storm_edge.runtime.errors import BuildError, StormError


def prepare_here(bundle: Bundle, goal: Goal, progress: Progress) -> tuple[dict[Stage, str], dict[str, FileSpec]]:
    """The prepared graphs by stage, and their files; raises BuildError with the workstation's command without onnx."""
    progress("prepare")
    try:
        from storm_edge.export.build.prepare import prepare  # onnx, which a device need not have
    except ImportError as e:
        workstation = command_for(bundle, goal, replace(goal.options, workspace_gib=None))
        workstation += f" --tensorrt {goal.version}" if goal.version and goal.timed else ""
        raise BuildError(
            f"{bundle.root} holds no graphs prepared for {goal.name} with these options by storm-edge"
            f" {importlib.metadata.version(RELEASE)}, and {e.name}, which prepares them, is not installed: prepare on a"
            f" workstation with `{workstation} --prepare-only`, or pip install onnx."
        ) from e

    return prepare(bundle, goal)


def prepared_before(bundle: Bundle, name: str, key: str) -> EngineRecord | None:
    """The prepared form of an engine, if it was prepared in the same way; a finished one keeps its prepared graphs."""
    found = existing(bundle, name)
    if found is None or found.state == "prepared":
        return found if found is not None and found.key == key else None
    if found.prepared_key != key:
        return None
    earlier = {"state": "prepared", "key": key, "graphs": found.prepared_graphs, "sms": []}
    earlier |= {"pieces": found.prepared_pieces}
    return found.model_copy(update=earlier | {"verified": False, "verification": []})


def existing(bundle: Bundle, name: str) -> EngineRecord | None:
    """The engine of a name, if there is one that can be read."""
    try:
        return read_engine(bundle, name)
    except StormError:
        return None


def command_for(bundle: Bundle, goal: Goal, options: BuildOptions) -> str:
    """The command that builds the same engine from the same graphs on its device."""
    return device_command(bundle, goal.where.name, goal.precision, goal.llm_precision, options)


def key_of(made_of: list[object]) -> str:
    """One word for all that an engine, or its prepared form, is made of."""
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
