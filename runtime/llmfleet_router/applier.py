"""Carries out the ordered updates: writes one file, waits until Envoy shows it, goes on."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Collection, Mapping, Set

import structlog

from llmfleet_router.admin import Admin, AdminError
from llmfleet_router.counters import Counters
from llmfleet_router.model import Desired, Routes
from llmfleet_router.resources import cluster_name, mirror_name
from llmfleet_router.served import Proof, Served, read_served
from llmfleet_router.settings import Settings
from llmfleet_router.store import Store
from llmfleet_router.updates import (
    AddClusters,
    Applied,
    Clusters,
    RemoveClusters,
    SetEndpoints,
    SetRoutes,
    Step,
    after,
    next_step,
    unrouted,
)
from llmfleet_router.xds import XdsFiles

log = structlog.get_logger("applier")

CONFIRM_TIMEOUT_SECONDS = 10.0
IDLE_POLL_SECONDS = 1.0
LIVE_POLL_SECONDS = 0.05
LIVE_TOLD_SECONDS = 30.0
MIN_UNROUTED_SECONDS = 2.0
"""A cluster stays at least this long after its last route: a worker may lag behind the main
thread, and a request that just chose the cluster is not counted as active yet."""


REJECTIONS = r".*\.update_rejected"
"""Envoy's counters of what it refused."""


class NotConfirmedError(RuntimeError):
    """Envoy did not show an update; nothing that depends on it may follow."""


class Applier:
    """Keeps Envoy's files equal to what the store desires.

    ``applied`` is what Envoy has confirmed, never what was merely written.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        admin: Admin,
        counters: Counters,
        on_confirmed: Callable[[], None] = lambda: None,
    ) -> None:
        self.applied = Applied()
        self.rejected_total = 0
        self._settings = settings
        self._store = store
        self._admin = admin
        self._counters = counters
        self._on_confirmed = on_confirmed
        self._files = XdsFiles(settings)
        self._unrouted_since: dict[str, float] = {}
        self._rejections: dict[str, int] = {}
        self._start = 1
        """Which start of Envoy it is that the agent knows of."""
        self._adopted_start = 0
        """And of which one ``applied`` speaks."""

    def adopt_anew(self) -> None:
        """Envoy starts again: nothing is applied before it shows what the files say."""
        self._start += 1
        self.applied = Applied()
        self._store.wake()

    async def run(self) -> None:
        """Follows the store until cancelled."""
        failures = 0
        while True:
            try:
                idle_seconds = await self._turn()
            except (NotConfirmedError, AdminError, OSError) as error:
                failures += 1
                delay = min(10.0, 0.2 * 2**failures) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
                log.warning("update_failed", error=str(error), retry_seconds=round(delay, 2))
                await asyncio.sleep(delay)
                continue
            failures = 0
            if idle_seconds != 0:
                await self._store.wait(idle_seconds)

    async def _turn(self) -> float | None:
        """One step; then how long nothing is to do unless the store changes, None for ever."""
        if self._adopted_start != self._start:
            await self._adopt()
            return 0
        # Envoy may start again at every await, and ``applied`` then becomes another: a step is
        # made from one and the same.
        applied, desired = self.applied, self._store.desired
        idle = await self._idle_clusters(applied, desired)
        step = next_step(applied, desired, idle)
        if step is not None:
            await self._perform(step, applied)
            return 0
        return IDLE_POLL_SECONDS if unrouted(applied, desired) else None

    async def _adopt(self) -> None:
        """Takes for applied what the files say and Envoy shows; nothing that is served changes.

        Raises:
            AdminError: Envoy has ended meanwhile.
        """
        start = self._start
        await self._until_live()
        self._rejections = _rejections(await self._admin.stats(REJECTIONS))
        served = read_served(self._settings)
        applied = Applied()
        if served is not None and await self._shows(served):
            applied = served.applied
            await self._counters.read(applied.endpoints)
        if start == self._start:
            self._adopted_start, self.applied = start, applied
            self._on_confirmed()
            served_now = sorted(applied.endpoints)
            log.info("adopted", revisions=served_now, generation=_generation(applied))

    async def _shows(self, served: Served) -> bool:
        """Whether Envoy has what the files say; it is asked to take them once more if not."""
        try:
            await self._confirm(served.proof)
        except NotConfirmedError:
            # An agent before this one was killed while Envoy refused its file, say.
            try:
                await self._confirm(self._files.write_again(served))
            except NotConfirmedError as error:
                log.warning("not_adopted", error=str(error), consequence="all is written anew")
                return False
        return True

    async def _until_live(self) -> None:
        since = time.monotonic()
        while not await self._admin.live():
            if time.monotonic() > since + LIVE_TOLD_SECONDS:
                since = time.monotonic()
                log.warning("envoy_not_live", container="envoy", consequence="not ready")
            await asyncio.sleep(LIVE_POLL_SECONDS)

    async def _perform(self, step: Step, applied: Applied) -> None:
        started = time.monotonic()
        if isinstance(step, RemoveClusters):
            await self._counters.read(step.clusters.revisions | step.clusters.mirrors)
        await self._confirm(self._files.write(step, applied))
        if isinstance(step, AddClusters):
            await self._counters.read(step.mirrors.union(step.endpoints))
        if self._adopted_start == self._start:
            self.applied = after(applied, step)
        if isinstance(step, RemoveClusters):
            self._files.delete_endpoints(step.clusters.revisions)
        self._on_confirmed()
        log.info(
            "envoy_updated", step=type(step).__name__, detail=_describe(step),
            milliseconds=round(1000 * (time.monotonic() - started), 1),
        )  # fmt: skip

    async def _confirm(self, expected: Proof) -> None:
        """Waits until Envoy's own stats show every expected value.

        Raises:
            NotConfirmedError: Envoy rejected the update, or shows nothing in time.
        """
        patterns = [re.escape(name) for name in expected]
        deadline = time.monotonic() + CONFIRM_TIMEOUT_SECONDS
        pause = 0.001
        while True:
            shown = await self._admin.stats(*patterns, REJECTIONS)
            if all(shown.get(name) == value for name, value in expected.items()):
                return
            known = self._rejections
            self._rejections = _rejections(shown)
            refused = [k for k, count in self._rejections.items() if count > known.get(k, 0)]
            if refused:
                self.rejected_total += len(refused)
                raise NotConfirmedError(f"Envoy rejected an update ({', '.join(refused)})")
            if time.monotonic() > deadline:
                raise NotConfirmedError(f"Envoy does not show {expected}")
            await asyncio.sleep(pause)
            pause = min(0.1, pause * 2)

    async def _idle_clusters(self, applied: Applied, desired: Desired) -> Clusters:
        """Clusters no route names that have no requests left, or were kept long enough."""
        waiting = unrouted(applied, desired)
        names = {revision: cluster_name(revision) for revision in waiting.revisions}
        mirrors = {revision: mirror_name(revision) for revision in waiting.mirrors}
        idle = await self._idle({*names.values(), *mirrors.values()})
        return Clusters(
            revisions=frozenset(r for r, name in names.items() if name in idle),
            mirrors=frozenset(r for r, name in mirrors.items() if name in idle),
        )

    async def _idle(self, waiting: Set[str]) -> set[str]:
        """Those of Envoy's clusters ``waiting`` that may go."""
        since = self._unrouted_since
        for name in since.keys() - waiting:
            del since[name]
        active = await active_requests(self._admin, waiting)
        now = time.monotonic()
        kept = {name: now - since.setdefault(name, now) for name in waiting}
        return {
            name
            for name, seconds in kept.items()
            if (seconds >= MIN_UNROUTED_SECONDS and not active[name])
            or seconds > self._settings.drain_timeout_seconds
        }


def _rejections(shown: Mapping[str, str]) -> dict[str, int]:
    return {name: int(value) for name, value in shown.items() if name.endswith("_rejected")}


def _generation(applied: Applied) -> int | None:
    return applied.routes.generation if applied.routes else None


async def active_requests(admin: Admin, clusters: Collection[str]) -> dict[str, int]:
    """Requests sent or waiting to be sent, by the name of Envoy's cluster."""
    kinds = ("upstream_rq_active", "upstream_rq_pending_active")
    names = {cluster: [f"cluster.{cluster}.{kind}" for kind in kinds] for cluster in clusters}
    found = await admin.numbers(name for group in names.values() for name in group)
    return {cluster: sum(found[name] for name in group) for cluster, group in names.items()}


def _describe(step: Step) -> str:
    match step:
        case AddClusters(endpoints=added, mirrors=mirrors):
            return " ".join([*(f"{r}:{len(e)}" for r, e in added.items()), *_mirrors(mirrors)])
        case SetEndpoints(revision=revision, endpoints=endpoints):
            return f"{revision}:{len(endpoints)}"
        case SetRoutes(routes=routes):
            return f"generation {routes.generation}: {_describe_routes(routes)}"
        case RemoveClusters(clusters=gone):
            return " ".join([*sorted(gone.revisions), *_mirrors(gone.mirrors)])


def _mirrors(revisions: Collection[str]) -> list[str]:
    return [f"mirror of {revision}" for revision in sorted(revisions)]


def _describe_routes(routes: Routes) -> str:
    parts = [" ".join(f"{r}={w}" for r, w in routes.split) or "nothing"]
    routing = routes.routing
    if routing.sticky:
        parts.append("by session")
    if routing.header_route:
        parts.append(f"headers to {routing.header_route.revision}")
    if routing.mirror:
        parts.append(f"{routing.mirror.percent} % mirrored to {routing.mirror.revision}")
    if routing.preview:
        parts.append(f"preview {routing.preview}")
    return ", ".join(parts)
