"""The language model of an engine through vLLM; export/build/language.py says what each function does.

Nothing is compiled: vLLM loads the Hugging Face folder that was prepared, which is the engine's own.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from storm_edge.export.build.goal import Goal
from storm_edge.export.build.language import Made
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.tensorrt_llm.ranks import check_architecture, check_tensor_parallel
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import EngineError, TargetError
from storm_edge.runtime.llm.vllm_package import RUNNER
from storm_edge.runtime.machine.packages import require_package
from storm_edge.runtime.machine.probe import Machine


def judge(bundle: Bundle, options: BuildOptions, precision: str, machine: Machine | None) -> None:
    """Raise TargetError for blocks and GPUs that it cannot do."""
    check_architecture(bundle.config.llm, "vLLM")
    check_tensor_parallel(bundle.config.llm, options.tp, options.int4_block if precision == "int4" else None)
    if machine is not None and len(machine.gpus) < options.tp:
        raise TargetError(
            f"--tp {options.tp} wants as many GPUs, this machine has {len(machine.gpus)}: give --tp"
            f" {len(machine.gpus)}, or --prepare-only for another machine."
        )


def version(bundle: Bundle, goal: Goal) -> str:
    """The package that runs here; raises TargetError with the command that serves the folder elsewhere."""
    try:
        return require_package(RUNNER)
    except EngineError as e:
        raise TargetError(
            f"{goal.name} is prepared, but the language model cannot be run here: {e} Or serve it where vLLM is: copy"
            f" its folder there and run `{by_hand(bundle, goal.name, goal.options)}`."
        ) from e


def prepare(bundle: Bundle, goal: Goal, folder: Path, progress: Callable[[str], None]) -> Made:
    """Write the Hugging Face folder."""
    from storm_edge.export.build.vllm.folder import write_folder  # onnx, which a device need not have

    block = goal.options.int4_block
    return Made(
        write_folder(bundle, folder, goal.llm_precision, calibration=goal.calibration, group=block, progress=progress)
    )


def compile(bundle: Bundle, goal: Goal, folder: Path, progress: Callable[[str], None]) -> Made:
    """Nothing: the folder is run as it is."""
    return Made([])


def by_hand(bundle: Bundle, name: str, options: BuildOptions) -> str:
    """The command that serves the folder; a video goes to it as embeddings, which are the encoders' to make."""
    length = options.max_length or bundle.config.llm.max_position_embeddings
    words = ["vllm", "serve", str(bundle.root / "engines" / name), "--enable-prompt-embeds"]
    words += ["--load-format", "safetensors", "--max-model-len", str(length)]
    return shlex.join([*words, *(["--tensor-parallel-size", str(options.tp)] if options.tp > 1 else [])])
