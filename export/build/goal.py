"""What a TensorRT build is to make, after every default is taken and every impossible wish refused."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from storm_edge.export.build.options import FIRST_DECODER, BuildOptions, Version, parse_version
from storm_edge.runtime.bundle.engine import engine_name
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import TargetError
from storm_edge.runtime.machine.packages import installed_tensorrt
from storm_edge.runtime.machine.precisions import check_llm_precision, check_precision, check_sms
from storm_edge.runtime.machine.probe import Machine
from storm_edge.runtime.machine.targets import Target
from storm_edge.runtime.machine.user_folders import cache_folder
from storm_edge.runtime.runners import RUNNERS

NEWEST = "10.16"  # prepared for where neither the machine nor the options say otherwise
RTX_AS = "10.15"  # TensorRT for RTX has versions of its own; its parser knows what 10.15's does


@dataclass(frozen=True)
class Goal:
    """An engine to be: `version` is the TensorRT it is prepared for, `sms` the GPUs it is compiled for."""

    where: Target
    machine: Machine
    precision: str
    llm_precision: str
    version: str
    runner: str
    llm_runner: str
    sms: tuple[int, ...]

    @property
    def name(self) -> str:
        """The engine's folder."""
        return engine_name(self.where.name, self.precision, self.llm_precision)

    @property
    def timed(self) -> bool:
        """Whether the builder times kernels on the GPU it builds on, so that engines, caches and versions are its own;
        TensorRT for RTX compiles for a compute capability.
        """
        return not RUNNERS[self.runner].for_absent_gpus

    @property
    def parsed_version(self) -> Version:
        """`version` as two numbers."""
        return parse_version(self.version)

    @property
    def here(self) -> bool:
        """Whether this machine has a GPU of the target, and the engine runs on it."""
        return self.where.name in self.machine.targets and self.machine.gpus[0].sm in self.sms


def resolve(where: Target, options: BuildOptions, machine: Machine) -> Goal:
    """Take the defaults of target and machine; raises TargetError for what the target cannot do, UsageError."""
    check_sms(where, options.sms)
    present = machine.gpus[0].sm if where.name in machine.targets else None
    sms = options.sms or ((present,) if present else ())
    precision = check_precision(where, options.precision, min(sms, default=None))
    versioned = not RUNNERS[where.runner].for_absent_gpus  # TensorRT for RTX has versions of its own
    version = RTX_AS
    if not versioned and options.tensorrt:
        raise TargetError("TensorRT for RTX has versions of its own: leave --tensorrt out for target rtx.")
    if versioned:
        version = options.tensorrt or (installed_tensorrt(RUNNERS[where.runner].package) if present else None) or NEWEST
        if parse_version(version) < parse_version(RUNNERS[where.runner].oldest):
            newer = f"{where.releases[0].name} or newer brings one" if where.integrated else "--tensorrt 10.3 or newer"
            raise TargetError(f"TensorRT {version} is older than 10.3, the first that these graphs build on: {newer}.")
    # A TensorRT too old for the language model leaves it to ONNX Runtime, where the target has that.
    release = None
    if parse_version(version) < FIRST_DECODER and "decoder" in options.stages:
        release = next((r for r in where.releases if not r.llm_tensorrt), None)
    return Goal(
        where=where,
        machine=machine,
        precision=precision,
        llm_precision=check_llm_precision(where, options.llm_precision, release, min(sms, default=None)),
        version=version,
        runner=where.runner,
        llm_runner=where.llm_runners[-1] if release else where.llm_runners[0],
        sms=sms,
    )


def require_installed(runner: str) -> str:
    """The version of a runner's installed TensorRT; raises TargetError where there is none."""
    package, extra = RUNNERS[runner].package, RUNNERS[runner].extra
    version = installed_tensorrt(package)
    if version is None:
        jetpack = "JetPack brings it (see docs/jetson.md), elsewhere " if package == "tensorrt" else ""
        raise TargetError(f"{package} is not installed: {jetpack}pip install 'storm-edge[{extra}]'.")
    return version


def device_command(bundle: Bundle, target: str, precision: str, llm_precision: str, options: BuildOptions) -> str:
    """The command that builds the same engine from the same prepared graphs on the device."""
    shapes = (("min", options.min_shapes), ("opt", options.opt_shapes), ("max", options.max_shapes))
    usual = BuildOptions()
    words = [f"storm build {shlex.quote(str(bundle.root))} --target {target} --precision {precision}"]
    words.append(f"--llm-precision {llm_precision}")
    for flag, value, default in (
        ("stages", ",".join(options.stages), ",".join(usual.stages)),
        ("max-frames", options.max_frames, usual.max_frames),
        ("max-length", options.max_length, None),
        ("int4-block", options.int4_block, usual.int4_block),
        ("calibration", options.calibration, None),
        *((f"{kind}-shapes", ",".join(f"{n}:{'x'.join(map(str, s))}" for n, s in given), "") for kind, given in shapes),
        ("workspace", options.workspace_gib, None),
    ):
        if value != default:
            words.append(f"--{flag} {value}")
    return " ".join([*words, *(["--allow-mismatch"] if options.allow_mismatch else [])])


def timing_cache(goal: Goal) -> Path:
    """The user's own timings of this TensorRT on this GPU: those that came with a bundle would be deserialized."""
    gpu = goal.machine.gpus[0]
    words = re.sub(r"[^A-Za-z0-9.]+", "-", f"{goal.runner} {require_installed(goal.runner)} {gpu.name} {gpu.sm}")
    return cache_folder() / "timing" / f"{words}.cache"
