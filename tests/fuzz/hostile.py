"""What an attacker may do to a bundle: every byte and every kind of directory entry is theirs.

An attack changes a copy of a sound bundle and seals it again, so that sizes and hashes fit. `ATTACKS` has all of them
by name; the modules that fill it are one for each kind of thing in a bundle.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LARGE = 32 << 20  # a file above this is not hashed: the manifest then says what it likes
READING = ("inspect", "inspect-json", "files", "verify", "run", "eval", "plan")
BUILDING = ("build", "build-int4", "build-int8", "rtx", "calibrate", "build-run")


class Chance(random.Random):
    """Chance by a seed, which chooses what is wanted where that is among the choices."""

    def __init__(self, seed: str, wanted: Sequence[object] = ()) -> None:
        super().__init__(seed)
        self._wanted = list(wanted)

    def choice(self, seq: Sequence[Any]) -> Any:
        """One of them; each wish is met once."""
        for option in seq:
            if option in self._wanted:
                self._wanted.remove(option)
                return option
        return super().choice(seq)


@dataclass
class Scene:
    """A bundle to attack, a folder outside it that must stay as it is, and the names that builds give to files."""

    bundle: Path
    outside: Path
    rng: random.Random
    prepared: list[str] = field(default_factory=list)

    def json(self, name: str) -> Any:
        """A decoded file of the bundle."""
        return json.loads((self.bundle / name).read_bytes())

    def write(self, name: str, data: bytes | str | dict[str, Any]) -> None:
        """A file of the bundle anew, never through a link."""
        path = self.bundle / name
        clear(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, dict):
            data = json.dumps(data)
        path.write_bytes(data if isinstance(data, bytes) else data.encode(errors="surrogatepass"))


Attack = Callable[[Scene], str]  # says what it did


@dataclass(frozen=True)
class Entry:
    """An attack, the commands it is meant for, and its group."""

    run: Attack
    group: str
    commands: tuple[str, ...]


ATTACKS: dict[str, Entry] = {}


def attack(group: str, commands: tuple[str, ...] = READING + BUILDING) -> Callable[[Attack], Attack]:
    """Enter a function as an attack under its name."""

    def enter(function: Attack) -> Attack:
        ATTACKS[function.__name__] = Entry(function, group, commands)
        return function

    return enter


def choose(rng: random.Random, only: str = "") -> tuple[str, str]:
    """An attack and a command: a group by chance, then one of its attacks; `only` names a group or an attack."""
    among = {name: entry for name, entry in ATTACKS.items() if only in ("", name, entry.group)}
    group = rng.choice(sorted({entry.group for entry in among.values()}))
    name = rng.choice(sorted(name for name, entry in among.items() if entry.group == group))
    return name, rng.choice(ATTACKS[name].commands)


def seal(bundle: Path, listed: tuple[str, ...] = ()) -> None:
    """Write the hashes of what lies there into the manifest, `listed` files too, and its hash into the engines."""
    path = bundle / "manifest.json"
    with suppress(ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        data = json.loads(path.read_bytes())
        for name in {*data["files"], *listed}:
            file = bundle / name
            if file.is_file() and file.stat().st_size <= LARGE:
                content = file.read_bytes()
                data["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        path.unlink()
        path.write_text(json.dumps(data))
    seal_engines(bundle)


def seal_engines(bundle: Path) -> None:
    """Give every engine's record the manifest's hash and those of its files."""
    with suppress(OSError):
        identity = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
        for record in bundle.glob("engines/*/engine.json"):
            with suppress(ValueError, KeyError, TypeError, AttributeError, OSError):
                data = json.loads(record.read_bytes())
                data["bundle_sha256"] = identity
                for name in data["files"]:
                    content = (bundle / name).read_bytes()
                    data["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                record.unlink()
                record.write_text(json.dumps(data))


def clear(path: Path) -> None:
    """Remove an entry, whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def special(path: Path, kind: str, outside: Path) -> str:
    """Put an entry of a kind there in place of what was there; returns the kind."""
    clear(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    links = {
        "link": outside / "secret.data",
        "relative link": Path(os.path.relpath(outside / "secret.data", path.parent)),
        "link to a writable file": outside / "plain.txt",
        "dangling link": outside / "new.txt",
        "link to a folder": outside / "folder",
        "link to itself": path,
        "link to /etc/passwd": Path("/etc/passwd"),
        "link to /dev/zero": Path("/dev/zero"),
        "link to /dev/full": Path("/dev/full"),
        "link to /dev/random": Path("/dev/random"),
        "link to /proc/self/environ": Path("/proc/self/environ"),
    }
    if kind in links:
        path.symlink_to(links[kind])
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        _bind(path)
    elif kind == "device":
        try:
            os.mknod(path, 0o20666, os.makedev(1, 5))
        except PermissionError:  # only root makes them
            path.symlink_to("/dev/zero")
    elif kind == "hard link":
        os.link(outside / "plain.txt", path)
    elif kind == "folder":
        (path / "inner").mkdir(parents=True)
    elif kind == "unreadable file":
        path.write_bytes(b"x")
        path.chmod(0)
    elif kind == "sparse file":
        with path.open("wb") as file:
            file.truncate(1 << 38)
    return kind


KINDS = (
    "link", "relative link", "link to a writable file", "dangling link", "link to a folder", "link to itself",
    "link to /etc/passwd", "link to /dev/zero", "link to /dev/full", "link to /dev/random",
    "link to /proc/self/environ", "FIFO", "socket", "device", "hard link", "folder", "unreadable file", "sparse file",
)  # fmt: skip


def _bind(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has 108 characters at most
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(before)
