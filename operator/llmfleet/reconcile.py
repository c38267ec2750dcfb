"""One pass over one LLMDeployment: observe → decide → record → apply → requeue.

When a pass runs is decided in ``tasks``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from llmfleet.cluster import metrics
from llmfleet.cluster.applying import Applied, Applier
from llmfleet.cluster.errors import NotFound
from llmfleet.cluster.gauges import ObjectGauges
from llmfleet.cluster.observing import Observer, UnreadableError
from llmfleet.cluster.priority import Priority
from llmfleet.cluster.store import Owner, version_number
from llmfleet.planning.plan import Plan
from llmfleet.planning.report.unreadable import decide_unreadable
from llmfleet.planning.snapshot import JSON, Snapshot
from llmfleet.tasks import Done, Gone, Outcome, Unfinished

Decide = Callable[[Snapshot, datetime], Plan]

OWN_WRITE_RECHECK_SECONDS: Final = 1.0
"""No watch wakes for our own writes."""
FOREIGN_RECHECK_SECONDS: Final = 10.0
"""No watch says when a name that a foreign object has becomes free."""

log: Any = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Shown:
    """What logs and metrics last said of an LLMDeployment; no decision rests on it."""

    uid: str = ""
    summary: str | None = None
    phase: str = ""
    newer_schema: bool = False


class Reconciler:
    """Makes LLMDeployments what their specs ask for, one pass at a time.

    Args:
        observer: gathers snapshots.
        applier: records and performs plans.
        decide: the pure decision.
    """

    def __init__(self, observer: Observer, applier: Applier, decide: Decide) -> None:
        self._observer = observer
        self._applier = applier
        self._decide = decide
        self._shown: dict[Owner, _Shown] = {}
        self._gauges = ObjectGauges()

    async def reconcile(self, owner: Owner, from_event: JSON | None) -> Outcome:
        """One pass; errors that it raises are answered in ``tasks``.

        Args:
            owner: which LLMDeployment.
            from_event: the resource as an event brought it; None reads it.
        """
        shown = self._shown.setdefault(owner, _Shown())
        try:
            snapshot = await self._observer.observe(owner, from_event)
        except NotFound:
            metrics.RECONCILES.labels("gone").inc()
            self._observer.forget(owner)
            self._applier.forget(shown.uid)
            return Gone()
        except UnreadableError as error:
            return await self._report_unreadable(owner, error)
        self._take_uid(shown, snapshot.raw)
        plan = self._decide(snapshot, datetime.now(UTC))
        self._show(owner, snapshot.raw, plan)
        applied = await self._applier.apply(snapshot, plan)
        self._observer.expect_routers(owner, snapshot, plan.status)
        metrics.RECONCILES.labels("changed" if applied.changed else "unchanged").inc()
        if applied.unfinished:
            return Unfinished(priority=Priority.LOW)
        if applied.look_again:
            return Unfinished(priority=Priority.NORMAL)
        return Done(
            version=applied.version,
            serves=_serves(plan),
            requeue_after=self._requeue_after(owner, plan, applied),
        )

    def forget(self, owner: Owner) -> None:
        """Take what the metrics show of an LLMDeployment back: nobody looks at it any more."""
        shown = self._shown.pop(owner, None)
        if shown is not None:
            _count_phase(shown, "")
            metrics.NEWER_STATUS_SCHEMA.dec(shown.newer_schema)
        self._gauges.forget(owner)

    def _take_uid(self, shown: _Shown, raw: JSON) -> None:
        """Forget an object that was deleted and made again under its name between two passes."""
        uid = raw["metadata"]["uid"]
        if shown.uid not in {"", uid}:
            self._applier.forget(shown.uid)
        shown.uid = uid

    async def _report_unreadable(self, owner: Owner, error: UnreadableError) -> Outcome:
        self._take_uid(self._shown[owner], error.raw)
        plan = decide_unreadable(error.raw, error.problem, datetime.now(UTC))
        self._show(owner, error.raw, plan)
        await self._applier.record_only(error.raw, plan)
        metrics.RECONCILES.labels("unreadable").inc()
        version = version_number(error.raw["metadata"]["resourceVersion"])
        return Done(version=version, serves=_serves(plan), requeue_after=None)

    def _requeue_after(self, owner: Owner, plan: Plan, applied: Applied) -> float | None:
        """Seconds until the soonest that any part asks for, with jitter; None: nobody asks."""
        asked = [] if plan.requeue_after is None else [plan.requeue_after]
        if applied.changed:
            asked.append(OWN_WRITE_RECHECK_SECONDS)
        if self._observer.has_foreign(owner):
            asked.append(FOREIGN_RECHECK_SECONDS)
        if not asked:
            return None
        return max(0.05, min(asked)) * random.uniform(1.0, 1.05)  # noqa: S311 - jitter

    def _show(self, owner: Owner, raw: JSON, plan: Plan) -> None:
        """One log line per changed decision, and the gauges."""
        shown, status = self._shown[owner], plan.status or {}
        _count_phase(shown, str(status.get("phase") or "Unknown"))
        deleting = bool(raw["metadata"].get("deletionTimestamp"))
        # Nobody looks any more, and what waits for somebody's finalizer is no alert of ours.
        self._gauges.show(owner, {} if deleting else status)
        newer_schema = plan.status is None and not deleting
        metrics.NEWER_STATUS_SCHEMA.inc(newer_schema - shown.newer_schema)
        shown.newer_schema = newer_schema
        if plan.summary == shown.summary:
            return
        known = shown.summary is None and plan.summary == (raw.get("status") or {}).get("message")
        shown.summary = plan.summary
        if known:
            return  # a leader before this one decided it
        log.info(
            plan.summary or "nothing to do",
            generation=raw["metadata"].get("generation"),
            revision=status.get("specRevision"),
            phase=shown.phase,
        )


def _serves(plan: Plan) -> bool:
    """Whether clients may depend on it."""
    return bool((plan.status or {}).get("servedRevision"))


def _count_phase(shown: _Shown, phase: str) -> None:
    """Move an object from its phase's gauge to another's; to none when it is empty."""
    if shown.phase == phase:
        return
    if shown.phase:
        metrics.OBJECTS.labels(shown.phase).dec()
    if phase:
        metrics.OBJECTS.labels(phase).inc()
    shown.phase = phase
