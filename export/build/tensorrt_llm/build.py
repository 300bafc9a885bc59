"""The language model of an engine through TensorRT-LLM; export/build/language.py says what each function does."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from storm_edge.export.build.goal import Goal
from storm_edge.export.build.language import COMPILED, Made
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.tensorrt_llm.compile import build_command, compile_checkpoint, limits, require_compiler
from storm_edge.export.build.tensorrt_llm.ranks import check_architecture, check_tensor_parallel
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import BuildError, TargetError, UsageError
from storm_edge.runtime.llm.tensorrt_llm_package import PACKAGE, require_package
from storm_edge.runtime.machine.packages import installed
from storm_edge.runtime.machine.probe import Machine
from storm_edge.runtime.machine.user_folders import cache_folder

CONFIG = "config.json"  # of the checkpoint, and of the engine
GROUPS = (64, 128)  # int4 weights that share a scale, for which the package has kernels


def judge(bundle: Bundle, options: BuildOptions, precision: str, machine: Machine | None) -> None:
    """Raise UsageError or TargetError for blocks, GPUs and clips that it cannot do, EngineError for another package."""
    block = options.int4_block if precision == "int4" else None
    if block is not None and block not in GROUPS:
        raise UsageError(f"--int4-block {block}: TensorRT-LLM has no kernels for it: choose 64 or 128.")
    check_architecture(bundle.config.llm, "TensorRT-LLM")
    check_tensor_parallel(bundle.config.llm, options.tp, block)
    limits(bundle.config, options.max_frames, options.max_length)
    if machine is None:
        return
    if installed(PACKAGE) is not None:
        require_package()
    if len(machine.gpus) < options.tp:
        raise TargetError(
            f"--tp {options.tp} wants as many GPUs, this machine has {len(machine.gpus)}: give --tp"
            f" {len(machine.gpus)}, or --prepare-only for another machine."
        )


def version(bundle: Bundle, goal: Goal) -> str:
    """The package that compiles here; raises TargetError with trtllm-build's command where there is none."""
    return require_compiler(_by_hand(bundle, goal.name, goal.options))[0]


def prepare(bundle: Bundle, goal: Goal, folder: Path, progress: Callable[[str], None]) -> Made:
    """Write the checkpoint: config.json, and rank{r}.safetensors for every GPU."""
    from storm_edge.export.build.tensorrt_llm.checkpoint import write_checkpoint  # onnx, which a device need not have

    options = goal.options
    written = write_checkpoint(
        bundle,
        folder,
        goal.llm_precision,
        options.tp,
        calibration=goal.calibration,
        group=options.int4_block,
        progress=progress,
    )
    return Made(written.files, notes=written.notes)


def compile(bundle: Bundle, goal: Goal, folder: Path, progress: Callable[[str], None]) -> Made:
    """Run trtllm-build on the checkpoint in `folder`; its log is kept in the user's cache folder."""
    output = folder / COMPILED
    command = _command(bundle, goal.options, folder, output)
    log = cache_folder() / "trtllm-build" / f"{goal.name}.log"
    compile_checkpoint(command, output, log, progress)
    config, *ranks = (output / name for name in (CONFIG, *(f"rank{r}.engine" for r in range(goal.options.tp))))
    for path in ranks:
        if not path.is_file():
            raise BuildError(f"trtllm-build made no {path.name}, though it said that it was done: see {log}.")
    others = sorted(p for p in output.rglob("*") if p.is_file() and p not in (config, *ranks))
    return Made([config, *ranks, *others])


def by_hand(bundle: Bundle, name: str, options: BuildOptions) -> str:
    """trtllm-build's command for the published checkpoint, into a folder where it is run."""
    return shlex.join(_by_hand(bundle, name, options))


def _by_hand(bundle: Bundle, name: str, options: BuildOptions) -> list[str]:
    return _command(bundle, options, bundle.root / "engines" / name, Path(name))


def _command(bundle: Bundle, options: BuildOptions, checkpoint: Path, output: Path) -> list[str]:
    wanted = limits(bundle.config, options.max_frames, options.max_length)
    found = json.loads((checkpoint / CONFIG).read_text(encoding="utf-8"))
    fp8_cache = found["quantization"]["kv_cache_quant_algo"] == "FP8"
    return build_command(checkpoint, output, wanted, options.tp, fp8_cache)
