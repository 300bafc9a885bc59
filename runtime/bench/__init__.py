"""Where the time of a question goes, beside what the machine can do at most."""

from storm_edge.runtime.bench.limits import Limits, measure_limits
from storm_edge.runtime.bench.measuring import Run, Runs, ask_engine, measure
from storm_edge.runtime.bench.report import SCHEMA, clip_report, peer_report

__all__ = ["SCHEMA", "Limits", "Run", "Runs", "ask_engine", "clip_report", "measure", "measure_limits", "peer_report"]
