"""What this router really serves: the answer to ``GET /llmfleet/state``."""

from __future__ import annotations

import asyncio
from typing import Any

from llmfleet_router.applier import Applier
from llmfleet_router.envoy import Admin
from llmfleet_router.resources import cluster_name
from llmfleet_router.settings import Settings
from llmfleet_router.store import Store

JSON = dict[str, Any]

MAX_WAIT_SECONDS = 60.0


class State:
    """Reads what the applier has confirmed, and Envoy's counters."""

    def __init__(self, settings: Settings, applier: Applier, admin: Admin, store: Store) -> None:
        self.draining = False
        self._settings = settings
        self._applier = applier
        self._admin = admin
        self._store = store
        self._confirmed = asyncio.Event()

    @property
    def generation(self) -> int | None:
        """The trafficGeneration Envoy's own stats show as applied."""
        routes = self._applier.applied.routes
        return routes.generation if routes else None

    @property
    def ready(self) -> bool:
        """A command was applied, and draining has not begun."""
        return self.generation is not None and not self.draining

    def confirmed(self) -> None:
        """Wakes those who wait for a generation."""
        waiting, self._confirmed = self._confirmed, asyncio.Event()
        waiting.set()

    async def wait_for(self, generation: int, timeout_seconds: float) -> None:
        """Returns when ``generation`` is served, at the latest after the timeout (≤ 60 s)."""
        try:
            async with asyncio.timeout(min(timeout_seconds, MAX_WAIT_SECONDS)):
                while self.generation != generation:
                    await self._confirmed.wait()
        except TimeoutError:
            return

    def weights(self) -> list[tuple[str, int, int, int]]:
        """(revision, weight, effective weight, endpoints) of every cluster Envoy has."""
        applied = self._applier.applied
        command = self._store.desired.command
        routes = applied.routes
        effective = dict(routes.effective) if routes else {}
        served = routes is not None and command is not None
        weights = (
            dict(command.weights)
            if served and command and routes and command.generation == routes.generation
            else effective
        )
        return [
            (revision, weights.get(revision, 0), effective.get(revision, 0), len(endpoints))
            for revision, endpoints in sorted(applied.endpoints.items())
        ]

    async def report(self) -> JSON:
        """The body of ``GET /llmfleet/state`` (docs/contract.md, Router)."""
        rows = self.weights()
        names = {row[0]: _counters(row[0]) for row in rows}
        counted = await self._admin.numbers(n for group in names.values() for n in group)
        return {
            "schema": 1,
            "pod": self._settings.pod_name,
            "trafficGeneration": self.generation,
            "waiting": 0,
            "revisions": [
                {
                    "revision": revision,
                    "weight": weight,
                    "effective": effective,
                    "endpoints": endpoints,
                    "requests": counted[names[revision][0]],
                    "inFlight": counted[names[revision][1]],
                    "errors": counted[names[revision][2]],
                }
                for revision, weight, effective, endpoints in rows
            ],
        }


def _counters(revision: str) -> tuple[str, str, str]:
    """Envoy's names for attempts sent, attempts in flight, attempts failed (bootstrap.py)."""
    cluster = f"cluster.{cluster_name(revision)}"
    return (
        f"{cluster}.upstream_rq_total",
        f"{cluster}.upstream_rq_active",
        f"llmfleet.attempt_errors.cluster.{cluster_name(revision)}",
    )
