"""Give `storm` bundles from an attacker; see docs/security.md.

    python tests/fuzz/bundles.py --cases 500

Prints how the cases ended, by kind of attack. Exit status 1 if one changed, read or took in a file outside the bundle,
ended in anything but exit 0, 1 or 2 with one line, took over 20 seconds or 1.5 GiB, or left a file or a process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import hostile
from attacks import ATTACKS

WORKERS = min(2, os.cpu_count() or 1)


def cases(count: int, seed: int, only: str, command: str) -> list[dict[str, Any]]:
    """Attacks and commands by chance."""
    chosen = []
    for number in range(count):
        name, verb = hostile.choose(random.Random(f"bundles {seed} {number}"), only)
        chosen.append({"number": number, "attack": name, "command": command or verb, "seed": f"{seed} {number}"})
    return chosen


def work(todo: Queue[dict[str, Any]], results: list[dict[str, Any]]) -> None:
    """Run cases in a sandbox until there are none."""
    server = Path(__file__).with_name("bundle_worker.py")
    with subprocess.Popen(
        [sys.executable, server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit("the sandbox does not start")
        while True:
            try:
                case = todo.get_nowait()
            except Empty:
                break
            process.stdin.write(json.dumps(case) + "\n")
            process.stdin.flush()
            result = json.loads(process.stdout.readline() or '{"faults": ["the sandbox ended"], "code": -1}')
            results.append(case | result)
        process.stdin.close()


def report(results: list[dict[str, Any]]) -> None:
    """A table: group of attacks, how many kinds, cases, answers, refusals, faults."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        groups[ATTACKS[result["attack"]].group].append(result)
    print(f"{'attacks':<16}{'cases':>6}{'done':>6}{'refused':>9}{'failed':>8}")
    for group, found in [*sorted(groups.items()), ("all", results)]:
        ends = Counter("failed" if r["faults"] else "refused" if r["code"] else "done" for r in found)
        print(f"{group:<16}{len(found):>6}{ends['done']:>6}{ends['refused']:>9}{ends['failed']:>8}")
    verbs = Counter(r["command"] for r in results)
    print("commands: " + ", ".join(f"{count} {verb}" for verb, count in sorted(verbs.items())))
    slowest, highest = max(r["seconds"] for r in results), max(r["peak"] for r in results)
    print(f"slowest {slowest:.1f} s, highest peak {highest >> 20} MiB")


def main() -> int:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="one attack, or one group of them")
    parser.add_argument("--command", default="", help="one command, whatever the attack is meant for")
    given = parser.parse_args()
    begun = time.perf_counter()
    todo: Queue[dict[str, Any]] = Queue()
    for case in cases(given.cases, given.seed, given.only, given.command):
        todo.put(case)
    results: list[dict[str, Any]] = []
    threads = [threading.Thread(target=work, args=(todo, results)) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.sort(key=lambda r: int(r["number"]))
    report(results)
    failed = [r for r in results if r["faults"]]
    for r in failed:
        print(f"FAILED case {r['number']}, {r['attack']} ({r['did']}), {r['command']}: {'; '.join(r['faults'][:4])}")
        print(f"    {r['said'][:300]!r}")
    print(f"bundles: {len(results)} cases in {time.perf_counter() - begun:.0f} s, {len(failed)} failed")
    return int(bool(failed) or len(results) != given.cases)


if __name__ == "__main__":
    sys.exit(main())
