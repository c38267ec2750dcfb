"""The agent's own HTTP port: /ready, /health, /llmfleet/state, /llmfleet/ledger, /metrics."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from llmfleet_router.admin import Admin, AdminError
from llmfleet_router.counters import Counts
from llmfleet_router.ledger import Ledger, LedgerError
from llmfleet_router.ledger_metrics import LedgerMetrics
from llmfleet_router.ledger_report import report_ledger
from llmfleet_router.settings import Settings
from llmfleet_router.state import MAX_WAIT_SECONDS, State

READER_SECONDS = 30.0
"""Who has not asked for the ledger for so long reads it no more; the operator asks every 5 s."""
MOST_DIGITS = 19
"""Of a number of 64 bits."""


class AgentPort:
    """Serves what the kubelet, the operator and Prometheus ask."""

    def __init__(self, settings: Settings, state: State, admin: Admin) -> None:
        self._settings = settings
        self._state = state
        self._admin = admin
        self._ledger_asked: float | None = None
        """When, by the monotonic clock."""
        self._ledger_given = asyncio.Event()
        self._ledger = Ledger(settings.ledger_file)
        self._ledger_metrics = LedgerMetrics(settings, self._ledger)
        app = web.Application()
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/health", self._health)
        app.router.add_get("/llmfleet/state", self._answer_state)
        app.router.add_get("/llmfleet/ledger", self._answer_ledger)
        app.router.add_get("/metrics", self._metrics)
        # A hanging GET must not hold up the end of the pod.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)

    async def start(self) -> None:
        """Listens."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.bind_address, self._settings.agent_port)
        await site.start()

    async def stop(self) -> None:
        """Closes the port."""
        await self._runner.cleanup()

    async def ledger_read(self, timeout_seconds: float) -> None:
        """Waits until whoever reads the ledger has what is in it now; at once if nobody does."""
        now = time.monotonic()
        if self._ledger_asked is None or now > self._ledger_asked + READER_SECONDS:
            return
        self._ledger_given = asyncio.Event()  # of a question that comes from now on
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ledger_given.wait(), timeout_seconds)

    async def _ready(self, _: web.Request) -> web.Response:
        if self._state.ready:
            return web.Response(text="ready\n")
        why = "draining" if self._state.draining else "Envoy has shown no traffic command yet"
        return web.Response(status=503, text=f"{why}\n")

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")  # the agent's own; Envoy's end is that of its container

    async def _answer_state(self, request: web.Request) -> web.Response:
        wanted = request.query.get("generation")
        if wanted is not None:
            try:
                generation = int(wanted)
                timeout = float(request.query.get("timeout", "30"))
            except ValueError:
                return web.Response(status=400, text="generation and timeout are numbers\n")
            if not 0 <= timeout <= MAX_WAIT_SECONDS:
                return web.Response(status=400, text="timeout is 0 … 60 seconds\n")
            await self._state.wait_for(generation, timeout)
        try:
            return web.json_response(await self._state.report())
        except AdminError as error:
            return web.Response(status=503, text=f"Envoy's admin interface: {error}\n")

    async def _answer_ledger(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not since.isascii() or not since.isdigit() or len(since) > MOST_DIGITS:
            return web.Response(status=400, text="since is the number `next` of an answer, or 0\n")
        self._ledger_asked, given = time.monotonic(), self._ledger_given
        try:
            answer = await asyncio.to_thread(
                report_ledger, self._ledger, int(since), self._state.identity()
            )
        except LedgerError as error:
            return web.Response(status=503, text=f"{error}\n")
        if not answer["more"]:
            given.set()
        return web.json_response(answer)

    async def _metrics(self, _: web.Request) -> web.Response:
        try:
            envoy = await self._admin.prometheus()
            counts = await self._state.counts()
        except AdminError:
            envoy, counts = "", {}  # none at all: a counter that shows 0 began again
        await asyncio.to_thread(self._ledger_metrics.update)
        own = generate_latest(self._registry(counts)).decode()
        return web.Response(
            text=own + envoy, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    def _registry(self, counts: Mapping[str, Counts]) -> CollectorRegistry:
        """Fresh each time, so a revision that is gone leaves no series behind."""
        registry = CollectorRegistry()
        registry.register(CountsCollector(self._settings, counts))
        registry.register(self._ledger_metrics)
        if self._state.generation is not None:
            Gauge(
                "llmfleet_router_traffic_generation",
                "The trafficGeneration that Envoy has confirmed.",
                registry=registry,
            ).set(self._state.generation)
        help_texts = {
            "llmfleet_router_weight": "Percent of requests commanded for the revision.",
            "llmfleet_router_effective_weight": "Percent of requests the revision really gets.",
            "llmfleet_router_endpoints": "Ready engine pods of the revision known to Envoy.",
        }
        gauges = [Gauge(n, h, ["revision"], registry=registry) for n, h in help_texts.items()]
        for revision, *values in self._state.weights():
            for gauge, value in zip(gauges, values, strict=True):
                gauge.labels(revision=revision).set(value)
        return registry


class CountsCollector(Collector):
    """Envoy's counts as counters of ours, which never begin again while the agent lives."""

    def __init__(self, settings: Settings, counts: Mapping[str, Counts]) -> None:
        self._of = (settings.namespace, settings.name)
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One family for each kind of count, with all revisions."""
        kinds: dict[str, tuple[str, Callable[[Counts], int]]] = {
            "requests": ("Attempts sent to the revision.", lambda of: of.requests),
            "errors": ("Attempts of them that failed.", lambda of: of.errors),
            "mirrored": ("Shadow requests sent to the revision.", lambda of: of.mirrored),
        }
        labels = ("llmdeployment_namespace", "llmdeployment", "revision")
        for kind, (words, value) in kinds.items():
            family = CounterMetricFamily(f"llmfleet_router_{kind}", words, labels=labels)
            for revision, counts in sorted(self._counts.items()):
                family.add_metric((*self._of, revision), value(counts))
            yield family
