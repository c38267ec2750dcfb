"""Counts per revision, which only rise as long as the pod lives."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from llmfleet_router.admin import Admin
from llmfleet_router.files import write_by_rename
from llmfleet_router.resources import cluster_name, mirror_name

log = structlog.get_logger("counters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a revision got since the pod began, and has now."""

    requests: int
    """Attempts sent; a retry is a second one."""
    errors: int
    """Attempts failed (logs.py says what that is)."""
    mirrored: int
    """Shadow requests sent."""
    in_flight: int
    """Attempts sent and not ended."""


@dataclass(slots=True)
class Rising:
    """A counter of Envoy's that may begin again, as one that does not.

    >>> counter = Rising()
    >>> [counter.at(shown) for shown in (3, 5, 0, 2)]
    [3, 5, 5, 7]
    """

    before: int = 0
    last: int = 0

    def at(self, shown: int | None) -> int:
        """The sum, now that Envoy shows ``shown``; None: it shows nothing."""
        if shown is not None:
            if shown < self.last:
                self.before += self.last
            self.last = shown
        return self.before + self.last


class Counters:
    """Envoy's counters, carried over when it forgets a cluster.

    A cluster that goes takes its counters along, and one that comes back, or mirrors again, begins
    at 0. So whoever removes clusters reads before, and whoever adds them reads before their first
    request.

    Args:
        admin: Envoy's.
        memory: a file for what Envoy has forgotten. Without it counters would fall when an agent
            starts beside an Envoy that has counted for days, and whoever reads them would take all
            that Envoy still counts for new.
    """

    def __init__(self, admin: Admin, memory: Path) -> None:
        self._admin = admin
        self._memory = memory
        self._rising = {name: Rising(before=before) for name, before in _recall(memory).items()}
        self._one_at_a_time = asyncio.Lock()
        """An answer that comes late would look like a counter that began again."""

    async def read(self, revisions: Iterable[str]) -> dict[str, Counts]:
        """The counts of these revisions.

        Raises:
            AdminError: Envoy does not answer.
        """
        names = {revision: _names(revision) for revision in revisions}
        if not names:
            return {}
        patterns = [re.escape(name) for group in names.values() for name in group.values()]
        async with self._one_at_a_time:
            shown = await self._admin.stats(*patterns)
            before = self._forgotten()
            counts = {revision: self._counts(group, shown) for revision, group in names.items()}
            if (forgotten := self._forgotten()) != before:
                self._remember(forgotten)
            return counts

    def _remember(self, forgotten: dict[str, int]) -> None:
        try:
            write_by_rename(self._memory, forgotten)
        except OSError as error:  # a full disk stops nothing that is served
            log.warning("counts_not_kept", error=str(error))

    def _forgotten(self) -> dict[str, int]:
        return {name: one.before for name, one in self._rising.items() if one.before}

    def _counts(self, names: Mapping[str, str], shown: Mapping[str, str]) -> Counts:
        found = {what: int(shown[name]) for what, name in names.items() if name in shown}
        totals = {
            what: self._rising.setdefault(names[what], Rising()).at(found.get(what))
            for what in ("requests", "errors", "mirrored")
        }
        return Counts(**totals, in_flight=found.get("in_flight", 0))


def _recall(memory: Path) -> dict[str, int]:
    try:
        return {str(name): int(before) for name, before in json.loads(memory.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _names(revision: str) -> dict[str, str]:
    """Envoy's names for what is counted (logs.py makes that of the errors)."""
    own, mirror = cluster_name(revision), mirror_name(revision)
    return {
        "requests": f"cluster.{own}.upstream_rq_total",
        "errors": f"llmfleet.attempt_errors.cluster.{own}",
        "mirrored": f"cluster.{mirror}.upstream_rq_total",
        "in_flight": f"cluster.{own}.upstream_rq_active",
    }
