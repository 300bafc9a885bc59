"""Kill `storm export --force` and `storm build` at random points; see docs/robustness.md.

    python tests/fuzz/kill.py --kills 50

After every kill -9 the bundle must be the one from before or the one being published, whole to the last byte, and every
engine in it valid; after the last, undisturbed runs must succeed and leave nothing else behind. Exit status 1 if not.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from corpus import tiny_config

from storm_edge.export.initialize import initialize
from storm_edge.runtime.bundle.engine import check_engine_hashes, engine_names, read_engine
from storm_edge.runtime.bundle.manifest import Bundle

STORM = Path(sys.executable).parent / "storm"


def command(step: str, folder: Path, pool: int) -> list[str]:
    """The command line of a step; bundles of different pooling differ."""
    bundle = str(folder / "bundle")
    if step == "export":
        return [str(STORM), "export", str(folder / "checkpoint"), "-o", bundle, "--force", f"--temporal-pool={pool}"]
    return [str(STORM), "build", bundle, "--target", "cpu"]


def run(step: str, folder: Path, pool: int) -> float:
    """Seconds of an undisturbed run."""
    start = time.perf_counter()
    done = subprocess.run(command(step, folder, pool), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"undisturbed storm {step} failed: {done.stderr}")
    return time.perf_counter() - start


def kill(step: str, folder: Path, pool: int, took: float, rng: random.Random) -> bool:
    """Run and kill -9: anywhere in the time it takes, or around publication; whether it was still running."""
    last = {"export": ".bundle.partial-*/manifest.json", "build": "bundle/engines/.*.partial-*/engine.json"}[step]
    process = subprocess.Popen(command(step, folder, pool), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if rng.random() < 0.5:
        wait = rng.uniform(0.1, took)
    else:
        while process.poll() is None and not list(folder.glob(last)):
            time.sleep(0.0005)
        wait = rng.uniform(0, 0.03)
    try:
        process.wait(wait)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def check(folder: Path, pools: set[int]) -> int:
    """The pooling of the bundle, after hashing all of it and its engines; raises StormError where one is damaged."""
    bundle = Bundle.open(folder / "bundle")
    bundle.check_hashes()
    for name in engine_names(bundle):
        check_engine_hashes(bundle, read_engine(bundle, name))
    pool = bundle.config.reduction.temporal_pool
    if pool not in pools:
        raise SystemExit(f"the bundle pools by {pool}, not by {pools}")
    return pool


def main() -> int:
    """Print how the kills ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, counts, start = random.Random(given.seed), Counter[str](), time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        initialize(tiny_config().model_copy(update={"dtype": "bfloat16"}), folder / "checkpoint")
        pool = 4
        took = {step: run(step, folder, pool) for step in ("export", "build")}
        while (kills := counts["exports killed"] + counts["builds killed"]) < given.kills:
            step = ("export", "build")[kills % 2]
            other = {2: 4, 4: 2}[pool]
            killed = kill(step, folder, other, took[step], rng)
            found = check(folder, {pool, other} if step == "export" else {pool})
            counts[f"{step}s killed" if killed else f"{step}s that ended before"] += 1
            counts["new bundles published"] += found != pool
            pool = found
        for step in took:
            run(step, folder, pool)
        check(folder, {pool})
        left = [p.name for p in (*folder.iterdir(), *folder.glob("bundle/**/*")) if "partial" in p.name]
        if left:
            raise SystemExit(f"left behind: {left}")
    took_all = time.perf_counter() - start
    print(f"{given.kills} of {given.kills} kills in {took_all:.0f} s left everything valid: {dict(counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
