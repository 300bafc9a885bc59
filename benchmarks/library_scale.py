"""A library of a million clips on paper, and 10,000 of them as a simulation of discrete events (simpy).

    python benchmarks/library_scale.py [--simulate] > docs/scale.md's tables

Stage times of the model come from `storm plan`; those of decoding are assumed, see DECODING.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass, replace

import simpy

from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.plan.planning import default_options, device_of, make_plan

CLIPS, FRAMES, ANSWER = 1_000_000, 128, 64
DAY = 86_400.0
CLIP_BYTES = 190e6  # five minutes at 5 Mbit/s
# Seconds of a core for a clip of five minutes of 1080p: two cores took 65.8 s and 1.2 s for one twice as long, and
# leaving out frames that no other needs took two thirds.
# Seconds of a core for a clip of 1080p. Assumed from decoding on two cores; no committed command measures them.
DECODING = {"every frame decoded": 66.0, "frames left out that no other needs": 44.0, "keyframes alone": 1.2}


@dataclass(frozen=True)
class Cluster:
    """What there is, and what a clip costs of it: seconds of a core, of the model, and of a node's network."""

    nodes: int
    cores: int  # a node
    gpus: int  # a node
    gigabits: float  # a node
    decode: float
    model: float

    @property
    def rates(self) -> dict[str, float]:
        """Clips a second that each resource allows."""
        return {
            "network": self.nodes * self.gigabits * 1e9 / 8 / CLIP_BYTES,
            "decode": self.nodes * self.cores / self.decode,
            "model": self.nodes * self.gpus / self.model,
        }

    @property
    def bottleneck(self) -> str:
        """What ends first."""
        return min(self.rates, key=lambda name: self.rates[name])


def model_seconds(device: str, questions: int = 1) -> float:
    """Seconds of a GPU for a clip: frames in memory to the last of ANSWER tokens, for each question."""
    where = target(device)
    plan = make_plan(preset("storm-7b"), where, device_of(where, None), default_options(where, FRAMES))
    decode = plan.stages["decode"].expected
    assert plan.first_token is not None
    assert decode is not None
    return plan.first_token + (ANSWER * questions) * decode


def simulate(cluster: Cluster, clips: int, ahead: int = 2, seed: int = 0) -> float:
    """Seconds until `clips` are answered; times vary by a third (log-normal), and a node holds `ahead` clips a GPU."""
    env, rng = simpy.Environment(), random.Random(seed)
    left = iter(range(clips))

    def varied(mean: float) -> float:
        return mean * rng.lognormvariate(-0.05, 0.32)

    def node() -> None:
        network, cores = simpy.Resource(env, 1), simpy.Resource(env, cluster.cores)
        gpus = simpy.Resource(env, cluster.gpus)
        for _ in range(cluster.cores + ahead * cluster.gpus):
            env.process(place(network, cores, gpus))

    def place(network: simpy.Resource, cores: simpy.Resource, gpus: simpy.Resource):  # type: ignore[no-untyped-def]
        for _ in left:
            with network.request() as held:
                yield held
                yield env.timeout(varied(CLIP_BYTES / (cluster.gigabits * 1e9 / 8)))
            with cores.request() as held:
                yield held
                yield env.timeout(varied(cluster.decode))
            with gpus.request() as held:
                yield held
                yield env.timeout(varied(cluster.model))

    for _ in range(cluster.nodes):
        node()
    env.run()
    return float(env.now)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate", type=int, default=10_000, metavar="CLIPS")
    clips = parser.parse_args().simulate
    print(f"{CLIPS:,} clips of five minutes, {FRAMES} frames, one question, {ANSWER} tokens of answer; storm-7b\n")
    print("| a clip takes | of | for a day |\n|---|---|---|")
    for name, seconds in DECODING.items():
        print(f"| {seconds:.1f} s | a core: {name} | {CLIPS * seconds / DAY:,.0f} cores |")
    for device in ("h100", "l4"):
        seconds = model_seconds(device)
        print(f"| {seconds:.2f} s | {device.upper()} | {CLIPS * seconds / DAY:,.0f} GPUs |")
    gigabits = CLIPS * CLIP_BYTES * 8 / DAY / 1e9
    print(f"| {CLIP_BYTES / 1e6:.0f} MB | the network | {gigabits:.1f} Gbit/s |\n")
    print(f"| nodes of 8 H100, 192 cores, 25 Gbit/s | bottleneck | on paper | {clips:,} clips simulated | of paper |")
    print("|---|---|---|---|---|")
    base = Cluster(2, 192, 8, 25.0, DECODING["every frame decoded"], model_seconds("h100"))
    for name, seconds in DECODING.items():
        for nodes in (1, 2, 4):
            cluster = replace(base, nodes=nodes, decode=seconds)
            paper, told = min(cluster.rates.values()), clips / simulate(cluster, clips)
            print(
                f"| {nodes}, {name} | {cluster.bottleneck} | {paper:.2f} a second, {CLIPS / paper / DAY:.1f} days |"
                f" {told:.2f} a second | {told / paper:.0%} |"
            )


if __name__ == "__main__":
    main()
