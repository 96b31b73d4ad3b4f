"""``GET /metrics`` for Prometheus: what this process counts, and the boot's state as gauges."""

from collections import Counter as Tally
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fileserver.boot import BootStatus
from morpheus_boot.jobs.record import Status
from morpheus_boot.report.state import BootState, ModelStage, Readiness, ServiceStage

_NOT_FOUND: Final = "none"


class Metrics:
    """The counters, and the page of them."""

    def __init__(self, boot: BootStatus) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "morpheus_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self.uploaded = Counter(
            "morpheus_uploaded_bytes", "Bytes of stored uploads.", registry=self._registry
        )
        self._downloaded = Counter(
            "morpheus_downloaded_bytes", "Bytes sent of jobs' outputs.", registry=self._registry
        )
        self.jobs_ended = Counter(
            "morpheus_jobs_ended",
            "Jobs of this worker that ended, by how.",
            ("status",),
            registry=self._registry,
        )
        self._registry.register(_BootCollector(boot))

    def count(self, method: str, route: str, status: int, sent_bytes: int) -> None:
        """Counts one answered request."""
        self._requests.labels(method, route, str(status)).inc()
        if route.startswith("/download/") and status in {200, 206}:
            self._downloaded.inc(sent_bytes)

    def page(self, more: Iterable[Metric]) -> bytes:
        """All of it in Prometheus' text format, ``more`` with it."""
        extra = CollectorRegistry()
        extra.register(_Fixed(list(more)))
        return generate_latest(self._registry) + generate_latest(extra)


class CountedRequests:
    """Wraps the whole application and counts what it answers."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on and counts."""
        status = sent_bytes = 0

        async def counted(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.body":
                sent_bytes += len(message.get("body", b""))
            elif message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            if status:
                self._metrics.count(scope["method"], _route(scope), status, sent_bytes)


def gauge(name: str, told: str, value: float) -> Metric:
    """One number for ``Metrics.page``."""
    return GaugeMetricFamily(name, told, value)


def jobs_at_hand(statuses: Iterable[Status]) -> Metric:
    """The jobs of this worker that are not over, for ``Metrics.page``."""
    jobs = GaugeMetricFamily(
        "morpheus_jobs_at_hand", "Jobs of this worker that are not over.", labels=["status"]
    )
    tally = Tally(statuses)
    for status in (Status.QUEUED, Status.RUNNING):
        jobs.add_metric([status], tally[status])
    return jobs


def _route(scope: Scope) -> str:
    """The route's template: a label must not take every path that anybody ever asks for."""
    return str(getattr(scope.get("route"), "path_format", _NOT_FOUND))


class _Fixed(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class _BootCollector(Collector):
    def __init__(self, boot: BootStatus) -> None:
        self._boot = boot

    def collect(self) -> Iterable[Metric]:
        state = self._boot.state
        if state is not None:
            yield from _boot_metrics(state)
            yield from _model_metrics(state)

    def describe(self) -> Iterable[Metric]:
        return ()


def _boot_metrics(state: BootState) -> Iterable[Metric]:
    readiness = GaugeMetricFamily(
        "morpheus_boot_readiness", "1 for the boot's present state.", labels=["state"]
    )
    for one in Readiness:
        readiness.add_metric([one], float(state.readiness == one))
    yield readiness
    phases = GaugeMetricFamily(
        "morpheus_boot_phase_seconds", "How long a finished phase took.", labels=["phase"]
    )
    for phase in state.phases:
        if phase.seconds is not None:
            phases.add_metric([phase.name], phase.seconds)
    yield phases
    running = GaugeMetricFamily(
        "morpheus_service_running", "1 while the service's process runs.", labels=["service"]
    )
    for service in state.services:
        running.add_metric([service.name], float(service.stage == ServiceStage.RUNNING))
    yield running
    if state.volume is not None and state.volume.size_bytes is not None:
        yield gauge("morpheus_volume_size_bytes", "The volume as bought.", state.volume.size_bytes)


def _model_metrics(state: BootState) -> Iterable[Metric]:
    models = GaugeMetricFamily("morpheus_models", "Models by where they stand.", labels=["stage"])
    tally = Tally(model.stage for model in state.models)
    for stage in ModelStage:
        models.add_metric([stage], tally[stage])
    yield models
    yield gauge(
        "morpheus_models_done_bytes",
        "Bytes of models that are here.",
        sum(model.done_bytes for model in state.models),
    )
    yield gauge(
        "morpheus_models_size_bytes",
        "Bytes of models whose size is known.",
        sum(model.size_bytes or 0 for model in state.models),
    )
