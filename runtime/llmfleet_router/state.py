"""What this router really serves: the answer to ``GET /llmfleet/state``."""

from __future__ import annotations

import asyncio
from typing import Any

from llmfleet_router.applier import Applier
from llmfleet_router.counters import Counters, Counts
from llmfleet_router.settings import Settings

JSON = dict[str, Any]

MAX_WAIT_SECONDS = 60.0
FEATURES = ("ledger/1",)
"""What this router can do that older ones cannot, for an operator of another version."""


class State:
    """Reads what the applier has confirmed, and Envoy's counters."""

    def __init__(self, settings: Settings, applier: Applier, counters: Counters) -> None:
        self.draining = False
        self._settings = settings
        self._applier = applier
        self._counters = counters
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
        routes = applied.routes
        effective = dict(routes.effective) if routes else {}
        weights = dict(routes.command.weights) if routes else {}
        return [
            (revision, weights.get(revision, 0), effective.get(revision, 0), len(endpoints))
            for revision, endpoints in sorted(applied.endpoints.items())
        ]

    async def counts(self) -> dict[str, Counts]:
        """What every revision with a cluster was sent.

        Raises:
            AdminError: Envoy does not answer.
        """
        return await self._counters.read(self._applier.applied.endpoints)

    def identity(self) -> JSON:
        """Who answers, and for which LLMDeployment: an address may have gone to another router."""
        routes = self._applier.applied.routes
        return {
            "schema": 1,
            "object": {
                "namespace": self._settings.namespace,
                "name": self._settings.name,
                "uid": routes.object_uid if routes else None,
            },
            "pod": self._settings.pod_name,
            "podUid": self._settings.pod_uid,
        }

    async def report(self) -> JSON:
        """The body of ``GET /llmfleet/state`` (docs/contract.md, Router)."""
        # All of one moment: what is applied may become another while Envoy is asked.
        rows, who, generation = self.weights(), self.identity(), self.generation
        counts = await self._counters.read(row[0] for row in rows)
        return {
            **who,
            "features": list(FEATURES),
            "trafficGeneration": generation,
            "waiting": 0,
            "revisions": [
                {
                    "revision": revision,
                    "weight": weight,
                    "effective": effective,
                    "endpoints": endpoints,
                    "requests": counts[revision].requests,
                    "inFlight": counts[revision].in_flight,
                    "errors": counts[revision].errors,
                    "mirrored": counts[revision].mirrored,
                }
                for revision, weight, effective, endpoints in rows
            ],
        }
