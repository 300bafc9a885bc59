"""What `storm batch` does with a library of the demo's clips: speed, kills, damaged videos, a cluster that loses nodes.

    python benchmarks/library.py make FOLDER -n 2000            # the clips, and table.jsonl
    python benchmarks/library.py speed BUNDLE FOLDER            # against Ray, one Python process, a loop of `storm run`
    python benchmarks/library.py kills BUNDLE FOLDER -n 100     # the run and its workers, killed at random
    python benchmarks/library.py damaged BUNDLE FOLDER          # one clip in twenty cut, emptied or overwritten
    python benchmarks/library.py ray BUNDLE FOLDER              # three nodes; a node, a worker and a driver killed

BUNDLE is the demo's with its engine. Every line printed is a JSON object; docs/library.md has them as tables.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

FRAMES, TOKENS = 16, 16
STORM = [sys.executable, "-c", "from storm_edge.cli import main; main()"]


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["make", "speed", "kills", "damaged", "ray"])
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("-n", type=int)
    given = parser.parse_args()
    *bundle, folder = given.paths
    if given.part == "make":
        make(folder, given.n or 2000)
        return
    with tempfile.TemporaryDirectory() as scratch:
        part = {"speed": speed, "kills": kills, "damaged": damaged, "ray": on_ray}[given.part]
        for result in part(bundle[0], folder, Path(scratch), given.n):
            print(json.dumps({"part": given.part} | result), flush=True)


def make(folder: Path, number: int) -> None:
    """Write clips of the demo's test split, and what is asked about them."""
    from storm_edge.demo.dataset import samples
    from storm_edge.runtime.video.encode import encode_video

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "table.jsonl").open("w", encoding="utf-8") as table:
        for i, sample in enumerate(islice(samples(frames=FRAMES, size=64), number)):
            encode_video(folder / f"{i:05d}.mp4", sample.frames, codec="libx264rgb", options={"qp": "0"})
            row = {"video": f"{i:05d}.mp4", "question": sample.question.text, "truth": sample.question.answer}
            table.write(json.dumps(row) + "\n")


def batch(bundle: Path, table: Path, out: Path, *more: str) -> list[str]:
    """The command."""
    asked = ["--videos", str(table), "--questions", "question", "--frames", str(FRAMES), "--max-tokens", str(TOKENS)]
    return [*STORM, "-q", "batch", str(bundle), *asked, "-o", str(out), *more]


def table_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of the table."""
    return [json.loads(line) for line in (folder / "table.jsonl").read_text(encoding="utf-8").splitlines()]


def answers(out: Path) -> dict[str, tuple[str | None, str | None]]:
    """Answer and error by video; fails where one is there twice."""
    from pyarrow import parquet as pq

    rows = pq.read_table(out).to_pylist() if list(out.glob("*.parquet")) else []
    held = {row["video"]: (row["answer"], row["error"]) for row in rows}
    assert len(held) == len(rows), "a row is there twice"
    return held


def speed(bundle: Path, folder: Path, scratch: Path, number: int | None) -> Iterator[dict[str, Any]]:
    """Clips a second of the batch; of one process, and of `storm run`, on fewer of them."""
    from storm_edge.runtime import SamplingOptions, load

    rows = table_of(folder)[: number or None]
    table = folder / f".table-{len(rows)}.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    watch = Watch()
    start = time.perf_counter()
    process = subprocess.Popen(batch(bundle, table, scratch / "out"))
    watch.follow(process)
    assert process.wait() == 0
    took = time.perf_counter() - start
    held = answers(scratch / "out")
    right = sum(held[row["video"]][0] == row["truth"] for row in rows)
    yield {"what": "storm batch", "clips": len(rows), "a_second": len(rows) / took, "right": right} | watch.report()
    if find_spec("ray") is not None:
        start = time.perf_counter()
        command = batch(bundle, table, scratch / "on-ray", "--ray", "auto")
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
        )
        assert answers(scratch / "on-ray") == held
        yield {
            "what": "storm batch --ray auto",
            "clips": len(rows),
            "a_second": len(rows) / (time.perf_counter() - start),
        }
    few = rows[:200]
    start = time.perf_counter()
    pipeline = load(bundle)
    for row in few:
        video = pipeline.open(folder / row["video"], frames=FRAMES)
        text = video.ask(row["question"], SamplingOptions(max_tokens=TOKENS)).read()
        assert text == held[row["video"]][0], row
    yield {"what": "one Python process", "clips": len(few), "a_second": len(few) / (time.perf_counter() - start)}
    start = time.perf_counter()
    for row in rows[:10]:
        subprocess.run(
            [*STORM, "-q", "run", str(bundle), str(folder / row["video"]), row["question"], "--frames", str(FRAMES)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    yield {"what": "a loop of storm run", "clips": 10, "a_second": 10 / (time.perf_counter() - start)}


class Watch:
    """Memory of a process and its children, every second."""

    def __init__(self) -> None:
        self._seen: list[int] = []

    def follow(self, process: subprocess.Popen[bytes]) -> None:
        """Look as long as the process runs."""
        threading.Thread(target=self._look, args=(process,), daemon=True).start()

    def _look(self, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None:
            pids = [process.pid, *children(process.pid)]
            self._seen.append(sum(resident(pid) for pid in pids))
            time.sleep(1)

    def report(self) -> dict[str, float]:
        """MiB after a fifth of the run, and at most after that: what a larger library would add to."""
        settled = self._seen[len(self._seen) // 5 :]
        return {"mib_settled": settled[0] / 2**20, "mib_most": max(settled) / 2**20, "mib_end": settled[-2] / 2**20}


def children(pid: int) -> list[int]:
    """The processes that a process started and that run."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def resident(pid: int) -> int:
    """A process's memory in bytes, shared pages divided among their users."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def kills(bundle: Path, folder: Path, scratch: Path, number: int | None) -> Iterator[dict[str, Any]]:
    """Kill the run or a worker of it at random until everything is answered; compare with an undisturbed run."""
    rng, count = random.Random(0), number or 100
    runs = workers = 0
    out = scratch / "out"
    while True:
        process = subprocess.Popen(batch(bundle, folder / "table.jsonl", out))
        while process.poll() is None and runs + workers < count:
            time.sleep(rng.uniform(0.5, 12))
            if rng.random() < 0.5 and (found := children(process.pid)):
                os.kill(rng.choice(found), signal.SIGKILL)
                workers += 1
            elif process.poll() is None:
                process.kill()
                runs += 1
        code = process.wait()
        assert code in (0, -signal.SIGKILL), f"the run ended with {code}"
        if code == 0:
            break
    assert subprocess.run(batch(bundle, folder / "table.jsonl", scratch / "quiet")).returncode == 0
    held, quiet = answers(out), answers(scratch / "quiet")
    yield {"runs_killed": runs, "workers_killed": workers, "rows": len(held), "equal": held == quiet}


def damaged(bundle: Path, folder: Path, scratch: Path, number: int | None) -> Iterator[dict[str, Any]]:
    """Damage one clip in twenty."""
    rng = random.Random(0)
    rows = table_of(folder)[: number or None]
    bad = set(rng.sample([row["video"] for row in rows], max(1, len(rows) // 20)))
    for i, name in enumerate(sorted(bad)):
        data = (folder / name).read_bytes()
        ways = (data[: len(data) // 2], b"", rng.randbytes(len(data)), data[:48] + bytes(len(data) - 48))
        (scratch / name).write_bytes(ways[i % len(ways)])
    for row in rows:
        row["video"] = str((scratch if row["video"] in bad else folder) / row["video"])
    (scratch / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    code = subprocess.run(batch(bundle, scratch / "table.jsonl", scratch / "out")).returncode
    held = answers(scratch / "out")
    errors = {video for video, (_, error) in held.items() if error}
    yield {
        "clips": len(rows),
        "damaged": len(bad),
        "rows": len(held),
        "errors": len(errors),
        "of_sound_clips": sum(not v.startswith(str(scratch)) for v in errors),
        "exit": code,
    }


def on_ray(bundle: Path, folder: Path, scratch: Path, number: int | None) -> Iterator[dict[str, Any]]:
    """A cluster of three nodes on this machine, undisturbed; then a driver, a worker and a node are killed."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    rows = table_of(folder)
    for disturbed in (False, True):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        try:
            out = scratch / f"disturbed-{disturbed}"
            command = batch(bundle, folder / "table.jsonl", out, "--ray", cluster.address, "--workers", "2")
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # Ray tells there of what it lost
            if disturbed:
                wait_for(out, len(rows) // 8, process)
                process.kill()  # the driver
                process.wait()
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
                wait_for(out, len(rows) // 4, process)
                name = b"Answerer"
                found = [p for p in Path("/proc").iterdir() if p.name.isdigit() and name in command_line(p)]
                for actor in found[:1]:
                    os.kill(int(actor.name), signal.SIGKILL)
                wait_for(out, len(rows) // 2, process)
                cluster.remove_node(nodes[0], allow_graceful=False)
            code = process.wait()
            took = time.perf_counter() - start
            held = answers(out)
            right = sum(held[row["video"]][0] == row["truth"] for row in rows if row["video"] in held)
            yield {"disturbed": disturbed, "rows": len(held), "of": len(rows), "right": right} | {
                "errors": sum(error is not None for _, error in held.values()),
                "exit": code,
                "seconds": took,
            }
        finally:
            cluster.shutdown()
            shutil.rmtree(scratch / "ray", ignore_errors=True)


def command_line(process: Path) -> bytes:
    """What a process calls itself."""
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def wait_for(out: Path, rows: int, process: subprocess.Popen[bytes]) -> None:
    """Until so many rows are written."""
    while process.poll() is None and (not out.exists() or len(answers(out)) < rows):
        time.sleep(2)


if __name__ == "__main__":
    main()
