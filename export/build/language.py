"""A language model whose runner takes files of its own and no graph, beside encoders that another runner runs.

The builder of the encoders calls this while it prepares, compiles and publishes, so that one record tells of all
stages. What differs between such runners is the module that their row of runtime/runners.py names: see `Builder`.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from storm_edge.export.build.goal import Goal
from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.bundle.door import located
from storm_edge.runtime.bundle.engine import ENGINE_FILE, ENGINE_JSON, EngineRecord
from storm_edge.runtime.bundle.hashes import Remembered
from storm_edge.runtime.bundle.manifest import Bundle, describe_file
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.probe import Machine
from storm_edge.runtime.runners import RUNNERS

Progress = Callable[[str], None]
COMPILED = "engine"  # the folder in an engine's that holds a compiled language model


@dataclass(frozen=True)
class Made:
    """Files in an engine's folder, of which the record names the first, and notes for the user."""

    files: list[Path]
    notes: list[str] = field(default_factory=list)


class Builder(Protocol):
    """What the module of such a runner has."""

    def judge(self, bundle: Bundle, options: BuildOptions, precision: str, machine: Machine | None) -> None:
        """Raise TargetError or UsageError for what it cannot do; `machine` is what it is compiled on, if it is now."""

    def version(self, bundle: Bundle, goal: Goal) -> str:
        """The package that compiles, or runs, here; raises TargetError with what to run where it is."""

    def prepare(self, bundle: Bundle, goal: Goal, folder: Path, progress: Progress) -> Made:
        """Write what any machine can into `folder`; needs onnx."""

    def compile(self, bundle: Bundle, goal: Goal, folder: Path, progress: Progress) -> Made:
        """Compile what was prepared in `folder` into its folder COMPILED, or nothing where that is run as it is.

        Raises BuildError.
        """

    def by_hand(self, bundle: Bundle, name: str, options: BuildOptions) -> str:
        """The command that compiles, or serves, the prepared engine `name` without this program."""


def builder_of(runner: str) -> Builder | None:
    """The module for a runner of language models; None where it takes a graph."""
    place = RUNNERS[runner].language
    return importlib.import_module(place) if place else None


def versions(bundle: Bundle, goal: Goal) -> dict[str, str]:
    """Package -> version of what compiles the language model here; raises as the builder's `version`."""
    builder = builder_of(goal.llm_runner)
    return {} if builder is None else {RUNNERS[goal.llm_runner].package: builder.version(bundle, goal)}


def placed(bundle: Bundle, goal: Goal, record: EngineRecord, folder: Path, progress: Progress) -> EngineRecord:
    """The record with its prepared language model, which is in `folder` then.

    What was prepared alike before is carried over, by name and without a copy. Raises EngineError where it is damaged.
    """
    builder = builder_of(goal.llm_runner)
    if builder is None:
        return record
    if "decoder" in record.graphs:
        return _carried(bundle, record, folder, progress)
    progress(f"prepare decoder for {RUNNERS[goal.llm_runner].words}")
    made = builder.prepare(bundle, goal, folder, progress)
    return _with(record, folder, made)


def compiled(bundle: Bundle, goal: Goal, record: EngineRecord, folder: Path, progress: Progress) -> EngineRecord:
    """The record with its language model compiled, or as it was prepared where the runner takes that."""
    builder = builder_of(goal.llm_runner)
    made = Made([]) if builder is None else builder.compile(bundle, goal, folder, progress)
    return _with(record, folder, made) if made.files else record


def _with(record: EngineRecord, folder: Path, made: Made) -> EngineRecord:
    names = {f"engines/{record.name}/{path.relative_to(folder).as_posix()}": path for path in made.files}
    words = RUNNERS[record.runners["decoder"]].words
    return record.model_copy(
        update={
            "graphs": record.graphs | {"decoder": next(iter(names))},
            "files": record.files | {name: describe_file(path) for name, path in names.items()},
            "notes": [*record.notes, *made.notes],
            "unchecked": record.unchecked | {"decoder": f"only {words} runs this form of it"},
        }
    )


def _carried(bundle: Bundle, record: EngineRecord, folder: Path, progress: Progress) -> EngineRecord:
    """The record without what was compiled of it; its language model's files are in `folder` then."""
    old = f"engines/{record.name}/"
    made_here = (f"{old}{ENGINE_JSON}", f"{old}{COMPILED}/")
    kept = {n: s for n, s in record.files.items() if not n.startswith(made_here) and not n.endswith(ENGINE_FILE)}
    changed = Remembered(bundle.root).changed({n: s.sha256 for n, s in kept.items()}, progress)
    if changed is not None:
        raise EngineError(f"{bundle.root / changed} is damaged: delete {bundle.root / old} and prepare it again.")
    for name in kept:
        if name.startswith(old):
            place = folder / name.removeprefix(old)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(located(bundle.root, name), place)
            except OSError:  # a file system without links to files
                shutil.copyfile(located(bundle.root, name), place)
    return record.model_copy(update={"files": kept})
