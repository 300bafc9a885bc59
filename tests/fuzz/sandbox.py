"""One `storm` command in a fork, as an ordinary user under limits, and all that can be seen of what it did."""

from __future__ import annotations

import os
import resource
import select
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 20.0
PEAK = 1536 << 20  # bytes
ADDRESSES = 6 << 30  # bytes: what keeps the machine alive, whatever an attack asks for
LARGEST_FILE = 1 << 30
LINE = 500  # characters
KEPT = (".cache/storm-edge", ".local/state/storm-edge")  # what commands may leave in the home
NOBODY = "65534"
_READ_ALL = 2  # the number of CAP_DAC_READ_SEARCH
_NEW = ("engines", "graphs", "calibration")  # where a build or a calibration adds


class Child(BaseException):
    """Leaves the stack of a fork, with the command line to run."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv


@dataclass
class Place:
    """The folders of a case."""

    root: Path
    bundle: Path = field(init=False)
    outside: Path = field(init=False)

    def __post_init__(self) -> None:
        for name in ("home", "tmp", "work", "said"):
            (self.root / name).mkdir()
        self.bundle, self.outside = self.root / "bundle", self.root / "outside"


def execute(argv: list[str], place: Place) -> dict[str, Any]:
    """Run one command line in a fork; what it said, its exit status, seconds, peak and faults."""
    begun = time.perf_counter()
    child = os.fork()
    if child == 0:
        _enter(place)
        raise Child(argv)
    watch = os.pidfd_open(child)
    ended, _, _ = select.select([watch], [], [], SECONDS + 1)
    os.close(watch)
    faults = []
    if not ended:
        os.killpg(child, signal.SIGKILL)
        faults.append(f"no end after {SECONDS:.0f} s")
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - begun
    faults += _left_running()
    code = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * 1024
    if ended and code not in (0, 1, 2):
        faults.append(f"exit status {code}")
    if ended and seconds > SECONDS:
        faults.append(f"{seconds:.0f} s")
    if peak > PEAK:
        faults.append(f"peak {peak >> 20} MiB")
    out, err = ((place.root / "said" / name).read_bytes() for name in ("out", "err"))
    if ended:
        faults += [*_bad_errors(err, code), *_bad_output(out, "--json" in argv, is_answer=argv[0] == "run")]
    said = err.decode(errors="replace").strip()[-600:]
    shown = out.decode(errors="replace")[:20_000]
    return {
        "argv": argv[0],
        "code": code,
        "out": shown,
        "seconds": seconds,
        "peak": peak,
        "said": said,
        "faults": faults,
    }


def _enter(place: Place) -> None:
    """Make a fork a user's process: home, temporary folder, input, output, limits."""
    os.setsid()
    os.environ.update(HOME=str(place.root / "home"), TMPDIR=str(place.root / "tmp"))
    tempfile.tempdir = None
    os.chdir(place.root / "work")
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(place.root / "said" / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for limit, value in (
        (resource.RLIMIT_AS, ADDRESSES),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def _left_running() -> list[str]:
    """Processes that outlive the command; they came to this one, which is their reaper, and are ended."""
    until = time.monotonic() + 1
    found: list[str] = []
    while True:
        try:
            child, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if child == 0 and time.monotonic() < until:
            time.sleep(0.01)
        elif child == 0:
            for number in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                found.append(f"process {Path(f'/proc/{number}/comm').read_text().strip()} still runs")
                os.kill(int(number), signal.SIGKILL)
            until = time.monotonic() + 1


def _bad_errors(raw: bytes, code: int) -> list[str]:
    text = raw.decode(errors="replace")
    lines = text.splitlines()
    found = [
        f"stderr has {word!r}" for word in ("Traceback", "error: unexpected", "panicked", "Warning:") if word in text
    ]
    if code in (1, 2) and len(lines) != 1:
        found.append(f"{len(lines)} lines on stderr")
    longest = max(map(len, lines), default=0)
    if longest > LINE:
        found.append(f"a line of {longest} characters on stderr")
    return found + (["control characters on stderr"] if _controls(text) else [])


def _bad_output(raw: bytes, as_json: bool, is_answer: bool) -> list[str]:
    """What must not be printed; into a pipe the model's answer goes as it is, whatever tokens it is of."""
    text = raw.decode(errors="replace")
    longest = 0 if as_json or is_answer else max(map(len, text.splitlines()), default=0)
    found = [f"a line of {longest} characters on stdout"] if longest > LINE else []
    return found + (["control characters on stdout"] if _controls(text) and not (is_answer and not as_json) else [])


def _controls(text: str) -> bool:
    return any(not c.isprintable() and c not in "\n\t\ufffd " for c in text)


def entries(bundle: Path) -> dict[str, tuple[int, int, int]]:
    """Every entry of a bundle with kind, size and time of change; links are not followed."""
    found = {}
    for root, folders, files in os.walk(bundle):
        if len(root) > 2000:
            folders.clear()
        for name in (*folders, *files):
            info = os.lstat(path := os.path.join(root, name))
            of_folder = stat.S_ISDIR(info.st_mode)
            found[path.removeprefix(f"{bundle}/")] = (
                info.st_mode,
                0 if of_folder else info.st_size,
                0 if of_folder else info.st_mtime_ns,
            )
    return found


def left_behind(place: Place, before: dict[str, tuple[int, int, int]], writes: bool) -> Iterator[str]:
    """Files where no command may leave any, and changes to what was in the bundle."""
    for folder in ("home", "tmp", "work"):
        for path in sorted((place.root / folder).rglob("*")):
            name = path.relative_to(place.root / folder).as_posix()
            if not (folder == "home" and any(name.startswith(kept) or kept.startswith(f"{name}/") for kept in KEPT)):
                yield f"left {folder}/{name}"
    after = entries(place.bundle)
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        added = writes and old is None and name.partition("/")[0] in _NEW and "partial" not in name
        if old != new and not added and not (writes and name.startswith(_NEW) and "/" in name):
            yield f"{'added' if old is None else 'changed'} {name} in the bundle"
        elif old is None and "partial" in name:
            yield f"left {name}"


def drop_root() -> None:
    """Root's commands could write anywhere; nobody's cannot. Reading stays, for a Python in root's own folder."""
    if os.geteuid() != 0:
        return
    setpriv = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    able = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("CapEff"))
    if int(able.split()[1], 16) & 1 << _READ_ALL:  # containers often lack it
        setpriv += ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    os.execvp("setpriv", [*setpriv, sys.executable, *sys.argv])
