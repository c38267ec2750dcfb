"""Carries out the ordered updates: writes one file, waits until Envoy shows it, goes on."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable

import structlog

from llmfleet_router import resources
from llmfleet_router.envoy import Admin, AdminError
from llmfleet_router.files import remember, write_by_rename
from llmfleet_router.model import Desired, Routes
from llmfleet_router.settings import Settings
from llmfleet_router.store import Store
from llmfleet_router.updates import (
    AddClusters,
    Applied,
    RemoveClusters,
    SetEndpoints,
    SetRoutes,
    Step,
    after,
    next_step,
    unrouted,
)

log = structlog.get_logger("applier")

CONFIRM_TIMEOUT_SECONDS = 10.0
IDLE_POLL_SECONDS = 1.0
MIN_UNROUTED_SECONDS = 2.0
"""A cluster stays at least this long after its last route: a worker may lag behind the main
thread, and a request that just chose the cluster is not counted as active yet."""


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
        on_confirmed: Callable[[], None] = lambda: None,
    ) -> None:
        self.applied = Applied()
        self.rejected_total = 0
        self._settings = settings
        self._store = store
        self._admin = admin
        self._on_confirmed = on_confirmed
        self._version = 0
        self._unrouted_since: dict[str, float] = {}
        self._rejections: dict[str, int] = {}

    def write_initial_files(self) -> None:
        """Files for Envoy's start: no clusters, API paths answer 503.

        What was served before is brought back by the first steps, which take milliseconds, before
        the router says it is ready.
        """
        self._write_clusters(frozenset())
        self._write_routes(None)

    async def run(self) -> None:
        """Follows the store until cancelled."""
        failures = 0
        while True:
            desired = self._store.desired
            try:
                idle = await self._idle_clusters(desired)
                step = next_step(self.applied, desired, idle)
                if step is not None:
                    await self._perform(step, desired)
            except (NotConfirmedError, AdminError, OSError) as error:
                failures += 1
                delay = min(10.0, 0.2 * 2**failures) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
                log.warning("update_failed", error=str(error), retry_seconds=round(delay, 2))
                await asyncio.sleep(delay)
                continue
            failures = 0
            if step is None:
                waiting = unrouted(self.applied, desired)
                await self._store.wait(IDLE_POLL_SECONDS if waiting else None)

    async def _perform(self, step: Step, desired: Desired) -> None:
        started = time.monotonic()
        expected = self._write(step)
        await self._confirm(expected)
        self.applied = after(self.applied, step)
        if isinstance(step, RemoveClusters):
            self._delete_endpoint_files(step)
        elif not isinstance(step, AddClusters):
            remember(self._settings.xds_dir, desired)
        self._on_confirmed()
        log.info(
            "envoy_updated", step=type(step).__name__, detail=_describe(step),
            milliseconds=round(1000 * (time.monotonic() - started), 1),
        )  # fmt: skip

    def _write(self, step: Step) -> dict[str, str]:
        """Writes the step's file; returns the stats, with values, that prove it."""
        match step:
            case AddClusters(endpoints=added):
                proof: dict[str, str] = {}
                for revision, endpoints in added.items():
                    # The cluster reads its endpoints while it is being added.
                    proof |= self._write_endpoints(
                        SetEndpoints(revision=revision, endpoints=endpoints)
                    )
                names = frozenset(self.applied.endpoints) | frozenset(added)
                return (
                    proof | self._write_clusters(names) | {"cluster_manager.warming_clusters": "0"}
                )
            case SetEndpoints():
                return self._write_endpoints(step)
            case SetRoutes(routes=routes):
                return self._write_routes(routes)
            case RemoveClusters(revisions=gone):
                return self._write_clusters(frozenset(self.applied.endpoints) - gone)

    def _write_clusters(self, revisions: frozenset[str]) -> dict[str, str]:
        clusters = resources.build_clusters(revisions, self._settings)
        version = self._next_version()
        self._put("cds.json", resources.discovery(resources.CLUSTER_TYPE, version, clusters))
        return {"cluster_manager.cds.version_text": version}

    def _write_endpoints(self, step: SetEndpoints) -> dict[str, str]:
        version = self._next_version()
        body = resources.discovery(
            resources.ENDPOINT_TYPE, version,
            [resources.build_endpoints(step.revision, step.endpoints)],
        )  # fmt: skip
        write_by_rename(resources.endpoints_file(self._settings.xds_dir, step.revision), body)
        return {f"cluster.{resources.cluster_name(step.revision)}.version_text": version}

    def _write_routes(self, routes: Routes | None) -> dict[str, str]:
        version = self._next_version()
        table = resources.build_route_configuration(routes, self._settings)
        self._put("rds.json", resources.discovery(resources.ROUTE_TYPE, version, [table]))
        return {f"http.public.rds.{resources.ROUTE_CONFIG_NAME}.version_text": version}

    def _put(self, name: str, body: resources.JSON) -> None:
        write_by_rename(self._settings.xds_dir / name, body)

    def _next_version(self) -> str:
        self._version += 1
        return str(self._version)

    def _delete_endpoint_files(self, step: RemoveClusters) -> None:
        for revision in step.revisions:
            resources.endpoints_file(self._settings.xds_dir, revision).unlink(missing_ok=True)
            self._unrouted_since.pop(revision, None)

    async def _confirm(self, expected: dict[str, str]) -> None:
        """Waits until Envoy's own stats show every expected value.

        Raises:
            NotConfirmedError: Envoy rejected the update, or shows nothing in time.
        """
        patterns = [re.escape(name) for name in expected]
        deadline = time.monotonic() + CONFIRM_TIMEOUT_SECONDS
        pause = 0.001
        while True:
            shown = await self._admin.stats(*patterns, r".*\.update_rejected")
            if all(shown.get(name) == value for name, value in expected.items()):
                return
            known = self._rejections
            self._rejections = {k: int(v) for k, v in shown.items() if k.endswith("_rejected")}
            refused = [k for k, count in self._rejections.items() if count > known.get(k, 0)]
            if refused:
                self.rejected_total += len(refused)
                raise NotConfirmedError(f"Envoy rejected an update ({', '.join(refused)})")
            if time.monotonic() > deadline:
                raise NotConfirmedError(f"Envoy does not show {expected}")
            await asyncio.sleep(pause)
            pause = min(0.1, pause * 2)

    async def _idle_clusters(self, desired: Desired) -> frozenset[str]:
        """Clusters no route names that have no requests left, or were kept long enough."""
        waiting = unrouted(self.applied, desired)
        if not waiting:
            self._unrouted_since.clear()
            return frozenset()
        active = await active_requests(self._admin, waiting)
        now = time.monotonic()
        idle = set()
        for revision in waiting:
            kept = now - self._unrouted_since.setdefault(revision, now)
            quiet = kept >= MIN_UNROUTED_SECONDS and not active[revision]
            if quiet or kept > self._settings.drain_timeout_seconds:
                idle.add(revision)
        return frozenset(idle)


async def active_requests(admin: Admin, revisions: frozenset[str]) -> dict[str, int]:
    """Requests sent or waiting to be sent, per revision."""
    kinds = ("upstream_rq_active", "upstream_rq_pending_active")
    names = {r: [f"cluster.{resources.cluster_name(r)}.{k}" for k in kinds] for r in revisions}
    found = await admin.numbers(name for group in names.values() for name in group)
    return {r: sum(found[name] for name in group) for r, group in names.items()}


def _describe(step: Step) -> str:
    match step:
        case AddClusters(endpoints=added):
            return " ".join(f"{r}:{len(e)}" for r, e in added.items())
        case SetEndpoints(revision=revision, endpoints=endpoints):
            return f"{revision}:{len(endpoints)}"
        case SetRoutes(routes=routes):
            split = " ".join(f"{r}={w}" for r, w in routes.split)
            return f"generation {routes.generation}: {split or 'nothing'}"
        case RemoveClusters(revisions=revisions):
            return " ".join(sorted(revisions))
