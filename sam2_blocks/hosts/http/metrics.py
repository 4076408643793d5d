"""What Prometheus is told."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam2_blocks.executors import CountsCache
from sam2_blocks.service import Service
from sam2_blocks.service.tracks import TrackSessions

PREFIX = "sam2_blocks"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64)
CLIENT_GONE = 499
PROBES = ("/health", "/ready", "/metrics")
"""Paths that machines ask every few seconds."""

_log = logging.getLogger(__name__)


class Metrics:
    """Counters and histograms of one app, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            f"{PREFIX}_requests", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            f"{PREFIX}_request_seconds",
            "Time from a request to its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            f"{PREFIX}_batch_size",
            "Requests that shared one run of the model.",
            ("stage",),
            buckets=SIZES,
            registry=self.registry,
        )

    def observe_batch(self, stage: str, size: int) -> None:
        """Count one run of the encoder or decoder."""
        self.batches.labels(stage).observe(size)

    def watch(self, service: Service, tracks: TrackSessions) -> None:
        """Report the queue, the caches, the device and the sessions of a service when asked."""
        self.registry.register(_ServiceCollector(service))
        self.registry.register(_TrackCollector(tracks))


class _ServiceCollector:
    """Reads what a service knows about itself at the time of the scrape."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            f"{PREFIX}_queue", "Requests waiting or being answered.", self._service.in_flight
        )
        yield from self._cache_metrics()
        yield from _gpu_metrics()

    def _cache_metrics(self) -> Iterator[Metric]:
        """Report each tier of each model's embeddings; sums over tiers are sensible."""
        prefix, labels = f"{PREFIX}_embedding_cache", ["model", "tier"]
        hits = CounterMetricFamily(f"{prefix}_hits", "Embeddings found.", labels=labels)
        misses = CounterMetricFamily(f"{prefix}_misses", "Embeddings not found.", labels=labels)
        evictions = CounterMetricFamily(f"{prefix}_evictions", "Embeddings dropped.", labels=labels)
        entries = GaugeMetricFamily(f"{prefix}_entries", "Embeddings held.", labels=labels)
        nbytes = GaugeMetricFamily(f"{prefix}_bytes", "Bytes of embeddings held.", labels=labels)
        runs = CounterMetricFamily(
            f"{PREFIX}_encoder_runs", "Images that went through the encoder.", labels=["model"]
        )
        for executor in self._service.models.executors:
            if not isinstance(executor, CountsCache):
                continue
            stats = executor.cache_stats()
            model = executor.spec.full_name
            runs.add_metric([model], stats.misses)
            for name, tier in stats.tiers.items():
                hits.add_metric([model, name], tier.hits)
                misses.add_metric([model, name], tier.misses)
                evictions.add_metric([model, name], tier.evictions)
                entries.add_metric([model, name], tier.entries)
                nbytes.add_metric([model, name], tier.nbytes)
        yield from (hits, misses, evictions, entries, nbytes, runs)


class _TrackCollector:
    """Reads how many sessions there are, and what they hold, at the time of the scrape."""

    def __init__(self, tracks: TrackSessions) -> None:
        self._tracks = tracks

    def collect(self) -> Iterator[Metric]:
        tracks, prefix = self._tracks, f"{PREFIX}_track"
        objects = sum(len(track.session.tracker_ids) for track in tracks.table)
        yield GaugeMetricFamily(f"{prefix}_sessions", "Sessions held.", len(tracks.table))
        yield GaugeMetricFamily(f"{prefix}_objects", "Objects that are followed.", objects)
        yield GaugeMetricFamily(f"{prefix}_bytes", "Bytes remembered of them.", tracks.nbytes)
        yield CounterMetricFamily(f"{prefix}_frames", "Frames taken.", tracks.frames)
        yield CounterMetricFamily(
            f"{prefix}_expired", "Sessions that nobody asked any more.", tracks.table.expired
        )


def _gpu_metrics() -> Iterator[Metric]:
    """Memory of each GPU, if torch is in use; never the reason to import it."""
    memory = GaugeMetricFamily(
        f"{PREFIX}_gpu_memory_bytes", "Memory allocated by torch.", labels=["device"]
    )
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            memory.add_metric([f"cuda:{index}"], torch.cuda.memory_allocated(index))
    yield memory


class MeasuringMiddleware:
    """Counts every answer by route and status, and how long it took; logs each as a line."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and watch its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status: int | None = None

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:  # becomes an answer outside of this middleware
            status = status or 500
            raise
        finally:
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - started
            self._metrics.requests.labels(route, status or CLIENT_GONE).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            _log_access(scope, status or CLIENT_GONE, seconds)


def _log_access(scope: Scope, status: int, seconds: float) -> None:
    """Write one line a request, without its query, which may hold a key; quietly for probes."""
    probe = status < 400 and scope["path"].startswith(PROBES)
    host = (scope.get("client") or ("-",))[0]
    _log.log(
        logging.DEBUG if probe else logging.INFO,
        "%s %s %s %d %.0f ms",
        host,
        scope["method"],
        scope["path"],
        status,
        seconds * 1000,
    )
