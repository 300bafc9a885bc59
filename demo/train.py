"""`python -m storm_edge.demo.train`: train the demo's checkpoint from nothing."""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import sys
from dataclasses import replace
from pathlib import Path


def main() -> None:
    """Train, or go on where an earlier run into the same folder was stopped."""
    parser = argparse.ArgumentParser(prog="python -m storm_edge.demo.train", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/training"), help="folder of the run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="steps of the last stage")
    parser.add_argument("--workers", type=int, help="processes on a CPU, of one thread each; default: one a core")
    parser.add_argument("--device", help="cuda or cpu; default: a GPU where there is one")
    parser.add_argument("--save-every", type=float, default=240, help="seconds between checkpoints")
    parser.add_argument("--test-every", type=int, default=300, help="steps between tests on held-out clips")
    parser.add_argument(
        "--no-temporal", action="store_true", help="the same network without its temporal encoder, for comparison"
    )
    parser.add_argument(
        "--lengthen", type=Path, metavar="CHECKPOINT", help="teach a trained checkpoint clips of up to 128 frames"
    )
    given = parser.parse_args()

    if not (importlib.util.find_spec("matplotlib") and importlib.util.find_spec("torch")):
        sys.exit("error: training needs PyTorch and matplotlib: pip install 'storm-edge[export,demo]'.")
    import torch

    from storm_edge.demo.tokenizer import write_demo_tokenizer

    given.output.mkdir(parents=True, exist_ok=True)
    given.device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    count = (given.workers or len(os.sched_getaffinity(0))) if given.device == "cpu" else 1
    if not (given.output / "tokenizer").exists():
        write_demo_tokenizer(given.output / "tokenizer")
    (given.output / "meeting").unlink(missing_ok=True)  # a killed run's
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_work, args=(given, rank, count), daemon=True) for rank in range(1, count)]
    for process in others:
        process.start()
    _work(given, 0, count)
    for process in others:
        process.join()
    print(f"{given.output / 'checkpoint'}: a checkpoint. Next: storm export {given.output / 'checkpoint'} -o BUNDLE")


def _work(given: argparse.Namespace, rank: int, count: int) -> None:
    """One process of a run; the first says what went wrong in all of them."""
    import torch

    from storm_edge.demo.training.plan import LENGTHEN, STAGES
    from storm_edge.demo.training.run import Run
    from storm_edge.demo.training.workers import Workers
    from storm_edge.runtime.errors import StormError

    if given.device == "cpu":
        torch.set_num_threads(1)
    stages = LENGTHEN if given.lengthen else STAGES
    if given.steps is not None:
        stages = (*stages[:-1], replace(stages[-1], steps=given.steps))
    workers = Workers(rank, count, given.output)
    try:
        run = Run(
            given.output,
            given.seed,
            stages,
            given.device,
            workers,
            lambda line: print(line, flush=True),
            temporal=not given.no_temporal,
            start=given.lengthen,
        )
    except StormError as e:
        sys.exit(f"error: {e}" if workers.first else 1)
    run.train(save_every=given.save_every, test_every=given.test_every)


if __name__ == "__main__":
    main()
