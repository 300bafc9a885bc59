"""Take storm-7b through `storm init`, export (bf16 and fp16), inspect and verify --files; prints Markdown as it goes.

    python benchmarks/full_size.py FOLDER > docs/full-size.md

Needs 32 GB of disk in FOLDER, which it empties of what it made; the peak is the largest resident set of each command,
file pages included. Takes most of an hour on two cores.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from storm_edge.runtime.machine.doctor import examine

STORM = Path(sys.executable).parent / "storm"
PRESET = "storm-7b"


def size(folder: Path) -> float:
    """GB on the disk."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


def step(words: str, *arguments: object, folder: Path | None = None) -> None:
    """Run one command of `storm` and print its row; its steps follow where it reports them."""
    start = time.perf_counter()
    process = subprocess.Popen([STORM, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - start
    code = os.waitstatus_to_exitcode(status)
    result = "exit 0" if code == 0 else f"FAILED, exit {code}"
    wrote = f"{size(folder):.1f} GB" if folder is not None and folder.exists() else ""
    print(f"| `{words}` | {result} | {took:.0f} s | {usage.ru_maxrss / 2**20:.1f} GiB | {wrote} |", flush=True)
    if code == 0 and "--json" in arguments:
        for name, seconds in json.loads(output).get("seconds", {}).items():
            if seconds >= 1:
                print(f"| - {name} | | {seconds:.0f} s | | |", flush=True)


def main() -> None:
    """Print the report."""
    folder = Path(sys.argv[1])
    checkpoint, bundle = folder / "checkpoint", folder / "bundle"
    machine = examine()["machine"]
    print("# storm-7b in full size\n")
    memory = machine["memory"].split(",")[0]
    print(f"{datetime.date.today()}, {machine['processor']}, {machine['cores']} cores, {memory} of memory,")
    print(f"Python {platform.python_version()}. Made by `python benchmarks/full_size.py FOLDER > docs/full-size.md`.")
    print("Random weights, bf16. The limit is 12 GiB.\n")
    print("| command | result | time | peak | wrote |\n|---|---|---|---|---|", flush=True)
    step(f"storm init {PRESET}", "init", PRESET, "-o", checkpoint, "--json", folder=checkpoint)
    for dtype in ("bfloat16", "float16"):
        arguments = ("export", checkpoint, "-o", bundle, "--dtype", dtype, "--json")
        step(f"storm export --dtype {dtype}", *arguments, folder=bundle)
        step("storm inspect", "inspect", bundle)
        step("storm verify --files", "verify", bundle, "--files", "--json")
        shutil.rmtree(bundle, ignore_errors=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


if __name__ == "__main__":
    main()
