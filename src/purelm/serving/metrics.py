"""What /metrics shows, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from purelm.inference.engine.request import Event

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# Of the engine's Statistics: name there -> what it is.
_GAUGES = {"running": "requests that are being written", "waiting": "requests that wait for a slot",
           "slots": "requests that can be written at once", "pages_used": "pages of keys and values in use",
           "pages_cached": "pages kept for prompts that begin alike", "pages_free": "pages in no use"}
_COUNTERS = {"prompt_tokens": "tokens of prompts", "reused_tokens": "of those, spared by a prompt that began alike",
             "generated_tokens": "tokens written"}


class Metrics:
    """The numbers of one server, in a registry of its own; the engine's are read when they are shown."""

    def __init__(self, engine: Any):
        self._registry = CollectorRegistry()
        self.requests = Counter("purelm_requests", "answered HTTP requests", ["route", "status"],
                                registry=self._registry)
        self.seconds = Histogram("purelm_request_seconds", "from a request to the end of its answer", ["route"],
                                 buckets=_SECONDS, registry=self._registry)
        self.first_token = Histogram("purelm_time_to_first_token_seconds", "from a request to its first token",
                                     buckets=_SECONDS, registry=self._registry)
        self.token = Histogram("purelm_time_per_token_seconds", "mean of an answer, after its first token",
                               buckets=_SECONDS, registry=self._registry)
        self.predicted = Counter("purelm_predicted_rows", "rows that /v1/predict answered", registry=self._registry)
        if engine is not None:
            self._registry.register(_EngineNumbers(engine))

    def watch(self) -> Watch:
        """For the events of one HTTP request."""
        return Watch(self)

    def text(self) -> bytes:
        """In Prometheus's own format."""
        return generate_latest(self._registry)


class Watch:
    """Times the answers of one HTTP request, from when it is made."""

    def __init__(self, metrics: Metrics):
        self._metrics, self._started = metrics, time.perf_counter()
        # By answer: when its first token came, and how many tokens came.
        self._first: dict[int, float] = {}
        self._count: dict[int, int] = {}

    def event(self, index: int, event: Event) -> None:
        """Takes note of an event of answer `index`."""
        from purelm.inference.engine.request import Tokens

        now = time.perf_counter()
        if isinstance(event, Tokens):
            if not self._first:
                self._metrics.first_token.observe(now - self._started)
            self._first.setdefault(index, now)
            self._count[index] = self._count.get(index, 0) + len(event.tokens)
        elif self._count.get(index, 0) > 1:
            self._metrics.token.observe((now - self._first[index]) / (self._count[index] - 1))


class _EngineNumbers:
    """Collects the engine's Statistics."""

    def __init__(self, engine: Any):
        self._engine = engine

    def collect(self) -> Iterator[Any]:
        numbers = self._engine.stats()
        for name, what in _GAUGES.items():
            yield GaugeMetricFamily(f"purelm_engine_{name}", what, value=getattr(numbers, name))
        for name, what in _COUNTERS.items():
            yield CounterMetricFamily(f"purelm_engine_{name}", what, value=getattr(numbers, name))
        finished = CounterMetricFamily("purelm_engine_finished", "requests that ended, by how", labels=["reason"])
        for reason, count in sorted(numbers.finished.items()):
            finished.add_metric([reason], count)
        yield finished
