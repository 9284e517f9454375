"""Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gptkit.inference.request import Request

if TYPE_CHECKING:
    from gptkit.serving.engine import AsyncEngine

__all__ = ["Metrics", "ModelMetrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Metrics of a server; those of a model have the label `model`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.responses = Counter(
            "gptkit_http_responses", "HTTP responses by route and status.", ("route", "status"), registry=self.registry
        )
        self.ended = Counter(
            "gptkit_requests", "Ended requests (one per choice) by reason.", ("model", "reason"), registry=self.registry
        )
        self.prompt_tokens = Counter("gptkit_prompt_tokens", "Tokens of prompts.", ("model",), registry=self.registry)
        self.cached_tokens = Counter(
            "gptkit_cached_prompt_tokens",
            "Tokens of prompts that were taken from the cache of an earlier prompt.",
            ("model",),
            registry=self.registry,
        )
        self.generated_tokens = Counter("gptkit_generated_tokens", "Generated tokens.", ("model",), registry=self.registry)
        self.first_token = self._histogram("gptkit_time_to_first_token_seconds", "Time from submission to the first token.")
        self.next_token = self._histogram("gptkit_time_per_output_token_seconds", "Time from one token to the next.")
        self.duration = self._histogram("gptkit_request_seconds", "Time from submission to the end of a request.")

    def _histogram(self, name: str, description: str) -> Histogram:
        return Histogram(name, description, ("model",), registry=self.registry, buckets=_SECONDS)

    def watch(self, engines: Mapping[str, AsyncEngine]) -> None:
        """Report the number of running and waiting requests of engines, by name of the model."""
        self.registry.register(_Engines(engines))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class ModelMetrics:
    """Listener of one model's engine (`gptkit.serving.events.Listener`)."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._ended, self._model = metrics.ended, model
        self._prompt_tokens = metrics.prompt_tokens.labels(model)
        self._cached_tokens = metrics.cached_tokens.labels(model)
        self._generated_tokens = metrics.generated_tokens.labels(model)
        self._first_token = metrics.first_token.labels(model)
        self._next_token = metrics.next_token.labels(model)
        self._duration = metrics.duration.labels(model)

    def first_tokens(self, seconds: float, count: int) -> None:
        self._first_token.observe(seconds)
        self._generated_tokens.inc(count)

    def next_tokens(self, seconds: float, count: int) -> None:
        for _ in range(count):
            self._next_token.observe(seconds / count)
        self._generated_tokens.inc(count)

    def ended(self, request: Request, n_generated: int, reason: str, seconds: float, n_cached: int) -> None:
        self._ended.labels(self._model, reason).inc()
        self._prompt_tokens.inc(len(request.prompt_ids))
        self._cached_tokens.inc(n_cached)
        self._duration.observe(seconds)


class _Engines(Collector):
    """Numbers that are read when the metrics are."""

    def __init__(self, engines: Mapping[str, AsyncEngine]) -> None:
        self._engines = engines

    def collect(self) -> Iterable[Metric]:
        running = GaugeMetricFamily("gptkit_running_requests", "Requests that are computed.", labels=("model",))
        waiting = GaugeMetricFamily("gptkit_queue_length", "Requests that wait for a place in the batch.", labels=("model",))
        for name, engine in self._engines.items():
            running.add_metric((name,), engine.n_running)
            waiting.add_metric((name,), engine.n_waiting)
        return running, waiting
