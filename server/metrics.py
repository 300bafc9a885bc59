"""What `GET /metrics` shows, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from storm_edge.runtime.answer.answer import AnswerStats

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """One server's figures."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("storm_requests", "HTTP requests.", ["path", "status"], registry=registry)
        self.refused = Counter("storm_questions_refused", "Questions refused by a full queue.", registry=registry)
        self.evicted = Counter("storm_video_cache_evicted", "Videos that went for others.", registry=registry)
        self._videos = Counter(
            "storm_video_cache_requests",
            "Answered questions, by whether their video was there.",
            ["result"],
            registry=registry,
        )
        self._tokens = Counter("storm_tokens", "Tokens of answered questions.", ["kind"], registry=registry)
        self.stages = Histogram(
            "storm_stage_seconds", "Seconds of a stage.", ["stage"], buckets=_SECONDS, registry=registry
        )
        self.first_token = Histogram(
            "storm_first_token_seconds", "From a question's arrival.", buckets=_SECONDS, registry=registry
        )
        self._answers = Histogram(
            "storm_answer_seconds",
            "From a question's arrival to its answer's end.",
            buckets=_SECONDS,
            registry=registry,
        )

    def watch(self, name: str, words: str, value: Callable[[], float]) -> None:
        """Show a value that is asked for when it is scraped."""
        Gauge(f"storm_{name}", words, registry=self._registry).set_function(value)

    def answered(self, stats: AnswerStats, cached: bool, seconds: float) -> None:
        """Count an answer."""
        self._videos.labels("hit" if cached else "miss").inc()
        for kind in ("visual", "prompt", "reused", "answer"):
            self._tokens.labels(kind).inc(getattr(stats, f"{kind}_tokens"))
        for stage in ("prefill", "decode"):
            self.stages.labels(stage).observe(stats.seconds[stage])
        self._answers.observe(seconds)

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self._registry)
