"""What the compiler made of a CUDA kernel, from nvdisasm's listing: paths, instructions by kind, loads in flight."""

from __future__ import annotations

import heapq
import importlib.util
import itertools
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_FUNCTION = re.compile(r"\.text\.(\S+):")
_LABEL = re.compile(r"\s*(\.L_x_\d+):")
_INSTRUCTION = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?(\S+)\s*(.*?)\s*;")
_WIDTH = {"64": 2, "128": 4}
EXPONENTIAL = "MUFU.EX2"
ELEMENTS = 16  # tokens and channels of a thread of the scan, kThreadTokens of two
WARPS = 8  # of a block, of which one speaks for a state


@dataclass(frozen=True)
class Instruction:
    """One instruction: the predicate it runs under, its name with all suffixes, and its operands."""

    predicate: str
    name: str
    operands: str

    @property
    def kind(self) -> str:
        """FFMA, LDG, ...; of the special function unit also what it computes."""
        first, _, rest = self.name.partition(".")
        return f"MUFU.{rest}" if first == "MUFU" else first

    @property
    def loads(self) -> bool:
        """Whether it asks global memory for something."""
        return self.kind in ("LDG", "LDGSTS")

    @property
    def loaded(self) -> set[str]:
        """The registers that a load fills."""
        if self.kind != "LDG" or not (target := re.match(r"R(\d+)", self.operands)):
            return set()
        count = next((n for suffix, n in _WIDTH.items() if suffix in self.name.split(".")), 1)
        return {f"R{int(target[1]) + i}" for i in range(count)}

    @property
    def read(self) -> set[str]:
        """The registers that it reads."""
        operands = self.operands
        if self.kind not in ("STG", "STS", "STL", "BRA"):  # their first operand is not written
            operands = operands.partition(",")[2]
        return set(re.findall(r"\bR\d+\b", operands))


@dataclass
class Kernel:
    """A kernel's instructions in order, and where its labels stand before them."""

    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    def target(self, at: int) -> int | None:
        """Where a branch leads; None for what is no branch to a label."""
        label = re.search(r"\.L_x_\d+", self.code[at].operands) if self.code[at].kind == "BRA" else None
        return self.labels[label[0]] if label else None

    def main_loop(self) -> range:
        """The innermost loop of the scan with an exponential a token: that over the states."""
        ends = [
            (target, at) for at in range(len(self.code)) if (target := self.target(at)) is not None and target <= at
        ]
        loops = [range(begin, end + 1) for begin, end in ends]
        exponentials = {loop: sum(self.code[at].name == EXPONENTIAL for at in loop) for loop in loops}
        return min((loop for loop in loops if exponentials[loop] >= ELEMENTS), key=len)

    def block_of_loads(self) -> list[Instruction]:
        """The run without a branch, in or out, that has the most loads."""
        edges = {0, *self.labels.values(), *(at + 1 for at in range(len(self.code)) if self.target(at) is not None)}
        runs = [self.code[begin:end] for begin, end in itertools.pairwise([*sorted(edges), len(self.code)])]
        return max(runs, key=lambda run: sum(instruction.loads for instruction in run))

    def path(self, begin: int, end: int, without: Sequence[tuple[int, int]] = ()) -> list[Instruction]:
        """The fewest instructions from one place to another, forwards, that do not take the branches `without`."""
        best, heap = {begin: (0, -1)}, [(0, begin)]
        while heap:
            cost, at = heapq.heappop(heap)
            if at == end:
                break
            for step in self._successors(at):
                if at < step <= end and (at, step) not in without and cost + 1 < best.get(step, (cost + 2, 0))[0]:
                    best[step] = (cost + 1, at)
                    heapq.heappush(heap, (cost + 1, step))
        steps, at = [end], end
        while at != begin:
            at = best[at][1]
            steps.append(at)
        return [self.code[at] for at in reversed(steps)]

    def _successors(self, at: int) -> list[int]:
        target, here = self.target(at), self.code[at]
        follows = here.predicate or here.kind not in ("BRA", "EXIT")
        return ([] if target is None else [target]) + ([at + 1] if follows and at + 1 < len(self.code) else [])


@dataclass(frozen=True)
class StateLoop:
    """What every warp of the scan issues for a state, and how much more the one that speaks to other blocks."""

    common: list[Instruction]
    speaking: int

    @property
    def mean(self) -> float:
        """Instructions a warp and state."""
        return len(self.common) + self.speaking / WARPS

    @property
    def kinds(self) -> Counter[str]:
        """The instructions that every warp issues, by kind."""
        return Counter(instruction.kind for instruction in self.common)


def state_loop(kernel: Kernel) -> StateLoop:
    """The scan's loop over the states: the shortest way through it, and that of the warp that speaks.

    After the first barrier all other warps skip what one does.
    """
    loop = kernel.main_loop()
    begin, end = loop[0], loop[-1]
    barrier = next(at for at in loop if kernel.code[at].kind == "BAR")
    skip = next(at for at in range(barrier, end) if kernel.target(at) is not None)
    common = kernel.path(begin, end)
    speaking = kernel.path(begin, end, without=[(skip, kernel.target(skip) or 0)])
    return StateLoop(common, len(speaking) - len(common))


def loads_in_flight(way: Sequence[Instruction]) -> tuple[int, int]:
    """How many loads are issued before the first that was issued is waited for, and how many there are at all."""
    pending: set[str] = set()
    issued, before = 0, None
    for instruction in way:
        if before is None and pending & instruction.read:
            before = issued
        issued += instruction.loads
        pending |= instruction.loaded
    return issued if before is None else before, issued


def find_nvdisasm() -> str | None:
    """The disassembler: on the PATH, of the toolkit, or of the package nvidia-cuda-nvdisasm."""
    spec = importlib.util.find_spec("nvidia")
    packages = [Path(place) / "cu13" / "bin" for place in (spec.submodule_search_locations or [])] if spec else []
    places = [None, "/usr/local/cuda/bin", *map(str, packages)]
    return next((found for place in places if (found := shutil.which("nvdisasm", path=place))), None)


def read(cubin: Path, nvdisasm: str) -> dict[str, Kernel]:
    """The kernels of a compiled file by their mangled names."""
    listing = subprocess.run([nvdisasm, "--print-code", cubin], check=True, capture_output=True, text=True).stdout
    return parse(listing)


def parse(listing: str) -> dict[str, Kernel]:
    """The kernels in nvdisasm's listing."""
    kernels: dict[str, Kernel] = {}
    kernel = Kernel()
    for line in listing.splitlines():
        if function := _FUNCTION.match(line):
            kernel = kernels.setdefault(function[1], Kernel())
        elif label := _LABEL.match(line):
            kernel.labels[label[1]] = len(kernel.code)
        elif found := _INSTRUCTION.match(line):
            kernel.code.append(Instruction(found[2] or "", found[3], found[4]))
    return kernels
