"""Seeded damage to bytes, to JSON, and to folders of both."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXTREMES = [
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**40,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 5000,
    "\n\n",
    "../../../etc/passwd",
    "/etc/passwd",
    "\u0000",
    "\ud800",
    [],
    {},
    [[]],
    {"a": 1},
    [0] * 1000,
]


def mutate_bytes(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """One to three kinds of damage."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(_DAMAGE)(bytearray(data), rng, other)
    return data


def _flip(data: bytearray, rng: random.Random, _: bytes) -> bytes:
    for _ in range(rng.choice((1, 4, 16, 64))):
        if data:
            data[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(data)


def _overwrite(data: bytearray, rng: random.Random, _: bytes) -> bytes:
    at, length = _place(data, rng), rng.choice((1, 4, 32, 400))
    data[at : at + length] = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return bytes(data)


def _extreme_number(data: bytearray, rng: random.Random, _: bytes) -> bytes:
    at = _place(data, rng)
    value = rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, rng.randrange(2**32)))
    data[at : at + 4] = value.to_bytes(4, rng.choice(("big", "little")))
    return bytes(data)


def _truncate(data: bytearray, rng: random.Random, _: bytes) -> bytes:
    return bytes(data[: rng.randrange(len(data) + 1)])


def _remove(data: bytearray, rng: random.Random, _: bytes) -> bytes:
    at = _place(data, rng)
    return bytes(data[:at] + data[at + rng.choice((1, 8, 100, 2000)) :])


def _repeat(data: bytearray, rng: random.Random, _: bytes) -> bytes:
    at, length = _place(data, rng), rng.choice((1, 8, 100, 2000))
    return bytes(data[:at] + data[at : at + length] * rng.choice((2, 5)) + data[at + length :])


def _insert(data: bytearray, rng: random.Random, _: bytes) -> bytes:
    at = _place(data, rng)
    return bytes(data[:at] + rng.randbytes(rng.choice((1, 8, 300))) + data[at:])


def _splice(data: bytearray, rng: random.Random, other: bytes) -> bytes:
    return bytes(data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :])


_DAMAGE: list[Callable[[bytearray, random.Random, bytes], bytes]] = [
    _flip,
    _overwrite,
    _extreme_number,
    _extreme_number,
    _truncate,
    _remove,
    _repeat,
    _insert,
    _splice,
]


def _place(data: bytearray, rng: random.Random) -> int:
    """Anywhere, but in the first or last bytes more often: headers and indexes lie there."""
    if not data:
        return 0
    near = min(1024, len(data))
    return rng.choice((rng.randrange(len(data)), rng.randrange(near), len(data) - 1 - rng.randrange(near)))


def mutate_json(text: bytes, rng: random.Random) -> bytes:
    """Change, remove or add values; now and then damage the text itself."""
    if rng.random() < 0.2:
        return mutate_bytes(text, rng)
    if rng.random() < 0.05:
        return b"[" * 100_000
    data = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        holders = [holder for holder in _holders(data) if holder]
        if not holders:
            break
        holder = rng.choice(holders)
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        action = rng.random()
        if action < 0.7:
            holder[key] = copy.deepcopy(rng.choice(EXTREMES))
        elif action < 0.85:
            del holder[key]
        elif isinstance(holder, dict):
            holder[rng.choice(("extra", "", "version", "__class__"))] = rng.choice(EXTREMES)
        else:
            holder.append(copy.deepcopy(holder[key]))
    return json.dumps(data).encode()


def _holders(data: Any) -> list[Any]:
    if not isinstance(data, (dict, list)):
        return []
    inner = data.values() if isinstance(data, dict) else data
    return [data, *(holder for value in inner for holder in _holders(value))]


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Damage to the header's JSON, to its length, or to the bytes."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    header = mutate_json(data[8 : 8 + length], rng)
    announced = rng.choice((len(header),) * 6 + (0, 2**63, len(header) + 1, len(data)))
    return announced.to_bytes(8, "little") + header + data[8 + length :]


def mutate_folder(source: Path, copy_to: Path, rng: random.Random, under: str = "") -> str:
    """Copy a checkpoint or bundle with one file damaged, one below `under`; returns what was done.

    Half of the bundles are sealed again, their manifest and engine with the new hashes, as an attacker would.
    """
    files = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file())
    for file in files:
        (copy_to / file).parent.mkdir(parents=True, exist_ok=True)
        os.link(source / file, copy_to / file)
    victim = rng.choice([f for f in files if f.as_posix().startswith(under)] if under else _weighed(files))
    path = copy_to / victim
    data = path.read_bytes()
    path.unlink()
    if rng.random() < 0.05:
        rng.choice((path.mkdir, lambda: path.symlink_to("/etc/passwd"), lambda: None))()
        return f"{victim} replaced"
    if victim.suffix == ".json":
        path.write_bytes(mutate_json(data, rng))
    elif victim.suffix == ".safetensors":
        path.write_bytes(mutate_safetensors(data, rng))
    else:
        path.write_bytes(mutate_bytes(data, rng))
    sealed = (copy_to / "manifest.json").is_file() and rng.random() < 0.7
    if sealed:
        _seal(copy_to, victim)
    return f"{victim} damaged" + (", sealed" if sealed else "")


def _weighed(files: list[Path]) -> list[Path]:
    # Small files are parsed, so they matter more than weights.
    return [f for f in files if f.suffix != ".data"] * 3 + files


def _seal(bundle: Path, victim: Path) -> None:
    manifest = bundle / "manifest.json"
    if victim.name != manifest.name:
        data = json.loads(manifest.read_bytes())
        if victim.as_posix() in data["files"]:
            damaged = (bundle / victim).read_bytes()
            entry = {"size": len(damaged), "sha256": hashlib.sha256(damaged).hexdigest()}
            data["files"][victim.as_posix()] = entry
            _replace(manifest, json.dumps(data).encode())
    for record in bundle.glob("engines/*/engine.json"):
        if record.relative_to(bundle) != victim:
            data = json.loads(record.read_bytes())
            data["bundle_sha256"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
            _replace(record, json.dumps(data).encode())


def _replace(path: Path, data: bytes) -> None:
    path.unlink()  # not written through: it is a link to the original
    path.write_bytes(data)


def remove(path: Path) -> None:
    """Remove a case's file or folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
