"""What a build is to make: the one place where its options are judged, against target, runner, bundle and machine.

Whoever builds takes a Goal, in which every default is taken, and judges nothing again. A new option is a field of
BuildOptions, a rule here that refuses it where nothing reads it, and a word in device_command.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from storm_edge.export.build.language_goal import judge_fused, judge_language
from storm_edge.export.build.options import BuildOptions, flag
from storm_edge.export.build.tensorrt.profiles import Profile, profiles
from storm_edge.export.build.tensorrt.versions import (
    FIRST_ATTENTION,
    FIRST_FUNCTIONS,
    NEWEST,
    RTX_AS,
    Version,
    parse_version,
)
from storm_edge.runtime.bundle.calibration import QUANTIZED, Calibration, Scheme, calibration_of, find_awq
from storm_edge.runtime.bundle.engine import SIMULATED, engine_name
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.errors import TargetError, UsageError
from storm_edge.runtime.machine.packages import installed
from storm_edge.runtime.machine.precisions import (
    check_llm_precision,
    check_precision,
    check_sms,
    require_bf16_units,
)
from storm_edge.runtime.machine.probe import Machine
from storm_edge.runtime.machine.targets import Target
from storm_edge.runtime.runners import RUNNERS

SHAPES = ("min_shapes", "opt_shapes", "max_shapes")
SWITCHES = ("wide_softmax", "without_plugin")
# Fields of BuildOptions that only a builder of a runner that compiles reads.
_COMPILED = (
    *("prepare_only", "llm", "tp", "tensorrt", "sms", "stages", "max_frames", "max_length", "workspace_gib"),
    *("decoder_profiles", *SWITCHES, *SHAPES),
)
# Of these, what a builder for a GPU reads too that compiles nothing.
_ON_GPU = ("prepare_only", "max_frames", "max_length")
# What the device is told again, because what was prepared depends on it.
REPEATED = ("llm", "tp", "stages", "max_frames", "max_length", "int4_block", "calibration", *SHAPES)


@dataclass(frozen=True)
class Goal:
    """An engine to be. `runner` runs vision and temporal, `llm_runner` the language model.

    Where a runner compiles, `version` is the TensorRT that graphs are prepared for, `sms` are the GPUs that engines are
    compiled for, `profiles` the shapes they take; elsewhere these are empty.
    """

    where: Target
    options: BuildOptions
    machine: Machine
    precision: str
    llm_precision: str
    runner: str
    llm_runner: str
    calibration: Calibration | None
    version: str = ""
    sms: tuple[int, ...] = ()
    profiles: dict[Stage, list[Profile]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The engine's folder."""
        chosen = self.llm_runner if self.llm_runner in self.where.llm_choices else ""
        name = engine_name(self.where.name, self.precision, self.llm_precision, chosen, self.options.tp)
        return name + SIMULATED if self.options.simulate else name

    @property
    def runners(self) -> dict[Stage, str]:
        """What runs each stage that is built."""
        return {stage: self.llm_runner if stage == "decoder" else self.runner for stage in self.options.stages}

    @property
    def graphs(self) -> tuple[Stage, ...]:
        """The stages that are built from a graph: all, but a language model whose runner takes none."""
        without = ("decoder",) if RUNNERS[self.llm_runner].language else ()
        return tuple(stage for stage in self.options.stages if stage not in without)

    @property
    def calibrated_by(self) -> str:
        """The calibration as an engine's record names it."""
        return f"{self.calibration.name} {self.calibration.sha256}" if self.calibration else ""

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
        """Whether this machine is the target, and the engine runs on its GPU where it has one."""
        if not RUNNERS[self.runner].compiles:
            return self.where.name in self.machine.targets
        return self.where.name in self.machine.targets and self.machine.gpus[0].sm in self.sms


def judge(bundle: Bundle, where: Target, options: BuildOptions, machine: Machine) -> Goal:
    """Take the defaults of target, bundle and machine, and refuse every wish that cannot be granted.

    Raises TargetError for what the target cannot do, UsageError for options that nothing would read or that contradict
    each other, BuildError where a calibration is missing.
    """
    _refuse_idle(where, options)
    check_sms(where, options.sms)
    if RUNNERS[where.runner].compiles and not options.simulate:
        return _compiled(bundle, where, options, machine)
    precision, wanted = check_precision(where, options.precision), options.llm_precision
    if RUNNERS[where.runner].device == "cuda" and not options.simulate:
        sm = machine.gpus[0].sm if where.name in machine.targets and not options.prepare_only else None
        wanted = judge_fused(bundle, where, options, sm)
        require_bf16_units(where, precision, sm, "--precision")
    llm_precision = check_llm_precision(where, wanted)
    runner = "onnxruntime-cpu" if options.simulate else where.runner
    llm_runner = runner if options.simulate else where.llm_runners[0]
    calibration = _calibration(bundle, where, precision, llm_precision, options)
    return Goal(where, options, machine, precision, llm_precision, runner, llm_runner, calibration)


def _compiled(bundle: Bundle, where: Target, options: BuildOptions, machine: Machine) -> Goal:
    """The goal of a build whose vision and temporal are compiled for a GPU."""
    present = machine.gpus[0].sm if where.name in machine.targets else None
    sms = options.sms or ((present,) if present else ())
    smallest = min(sms, default=None)
    precision = check_precision(where, options.precision, smallest)
    version = _version(where, options, present is not None)
    _refuse_switches(version, options)
    here = machine if present and not options.prepare_only else None
    llm_runner, llm_precision = judge_language(bundle, where, options, version, smallest, here)
    goal = Goal(
        where,
        options,
        machine,
        precision,
        llm_precision,
        where.runner,
        llm_runner,
        _calibration(bundle, where, precision, llm_precision, options),
        version,
        sms,
    )
    return replace(goal, profiles=profiles(bundle, replace(options, stages=goal.graphs), not goal.timed))


def _refuse_idle(where: Target, options: BuildOptions) -> None:
    """Raise UsageError for options that no builder of this target reads, with these others."""
    names: tuple[str, ...] = ()
    why = ""
    if not RUNNERS[where.runner].compiles:
        if options.simulate:
            raise UsageError(f"--simulate stands in for TensorRT: build {where.name} without it, here or where it is.")
        read = _ON_GPU if RUNNERS[where.runner].device == "cuda" else ()
        names = tuple(name for name in _COMPILED if name not in read)
        why = f"is for TensorRT targets: leave it out for {where.name}"
    elif options.simulate:
        names, why = _COMPILED, "is for what TensorRT compiles: leave it out with --simulate"
    elif options.prepare_only:
        names, why = ("sms", "workspace_gib"), "is for compiling: give it where --prepare-only is left out"
    for name in names:
        if options.says(name):
            raise UsageError(f"{flag(name)} {why}.")
    if options.workspace_gib is not None and not math.isfinite(options.workspace_gib):
        raise UsageError(f"--workspace {options.workspace_gib} is no size: give GiB, 2 or 0.5 for instance.")


def _version(where: Target, options: BuildOptions, present: bool) -> str:
    """The TensorRT to prepare for; raises TargetError for one that is too old, or where there is no choice."""
    runner = RUNNERS[where.runner]
    if runner.for_absent_gpus:
        if options.tensorrt:
            raise TargetError("TensorRT for RTX has versions of its own: leave --tensorrt out for target rtx.")
        return RTX_AS
    version = options.tensorrt or (installed(runner.package) if present else None) or NEWEST
    if parse_version(version) < parse_version(runner.oldest):
        newer = f"{where.releases[0].name} or newer brings one" if where.integrated else "--tensorrt 10.3 or newer"
        raise TargetError(f"TensorRT {version} is older than 10.3, the first that these graphs build on: {newer}.")
    return version


def _refuse_switches(version: str, options: BuildOptions) -> None:
    """Raise an error for switches that a TensorRT of this version does not need, or cannot obey."""
    if options.wide_softmax and parse_version(version) >= FIRST_ATTENTION:
        raise UsageError(
            f"--wide-softmax is for TensorRT before 10.14, which knows no attention: leave it out for {version}."
        )
    if options.without_plugin and parse_version(version) < FIRST_FUNCTIONS:
        raise TargetError(
            f"TensorRT {version} cannot expand the operators (10.7 is the first that does): leave out"
            " --without-plugin, and build the plugin on the device."
        )


def _calibration(
    bundle: Bundle, where: Target, precision: str, llm_precision: str, options: BuildOptions
) -> Calibration | None:
    """What the build reads of a calibration; raises UsageError for one, or for int4 blocks, that it would not read."""
    name, int4_block = options.calibration, options.int4_block
    if int4_block != BuildOptions.int4_block and llm_precision != "int4":
        raise UsageError(
            f"--int4-block {int4_block} is for int4 weights, this language model's are {llm_precision}: add"
            " --llm-precision int4, or leave it out."
        )
    if name is not None and precision not in QUANTIZED and llm_precision != "fp8":
        if llm_precision != "int4":
            raise UsageError(
                f"--calibration {name}: {precision} and {llm_precision} need none: add --precision int8, or leave it"
                " out."
            )
        if find_awq(bundle, name) is None:
            raise UsageError(
                f"{bundle.root} has no calibration {name!r} with scales for int4 weights: run `storm calibrate"
                f" {bundle.root} --data DIR --awq`, or leave --calibration out."
            )
    # CPUs multiply uint8 activations by int8 weights.
    cpu = RUNNERS[where.runner].device == "cpu"
    scheme: Scheme = "fp8" if precision == "fp8" else "uint8" if cpu else "int8"
    return calibration_of(bundle, precision, llm_precision, name, scheme)
