"""The spine: observe → decide → record → apply → requeue, one task per LLMDeployment.

Level-triggered: a wake-up says only "look again". The wake-up is cleared before observing, so a
change that arrives while a reconcile runs causes another one, and nothing is lost. One object's
trouble never delays another's: each has its own task and backoff, and they share only a limit on
how many observe and apply at the same time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import structlog

from llmfleet.cluster import metrics
from llmfleet.cluster.applying import Applied, Applier
from llmfleet.cluster.backoff import Backoff
from llmfleet.cluster.errors import ApiError, Conflict, NotFound, NotLeading
from llmfleet.cluster.observing import Observer, UnreadableError
from llmfleet.cluster.store import Owner
from llmfleet.cluster.transitions import RolloutGauges
from llmfleet.cluster.turns import Haste, Turns
from llmfleet.planning.plan import Plan
from llmfleet.planning.report.unreadable import decide_unreadable
from llmfleet.planning.snapshot import JSON, Snapshot

Decide = Callable[[Snapshot, datetime], Plan]

CONCURRENT_RECONCILES: Final = 64
"""The passes of a new object wait for some 16 writes, one after the other; making a Role alone
takes the API server 0.4 s under load, since it looks up what its maker may grant."""
BESIDE_URGENT: Final = {Haste.ORDINARY: 4, Haste.LATER: 1}
"""Passes of other objects at the same time while new ones wait for their engines."""
URGENT_CALM_SECONDS: Final = 1.0
RECONCILE_TIMEOUT_SECONDS: Final = 120.0
OVERDUE_SECONDS: Final = 300.0
"""A reconcile that is this late, or runs this long, means that reconciling has stopped."""
FIRST_BACKOFF_SECONDS: Final = 1.0
LONGEST_BACKOFF_SECONDS: Final = 300.0
STRANGER_RECHECK_SECONDS: Final = 10.0
CONFLICTS_WITHOUT_PAUSE: Final = 5
CALM_SECONDS: Final = 1.0
"""From a pass of one object to the next for news of its children, which come in bursts. What
people and routers tell is looked at at once."""

log: Any = structlog.get_logger(__name__)


class _Ended(Enum):
    """The task ends: its object is gone, or this process does not lead any more."""

    ENDED = "Ended"


class _Task:
    """Waking, pausing and memory of one LLMDeployment's task; no decision rests on it."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.due: float | None = None
        self.not_before = 0.0
        self.running_since: float | None = None
        self.backoff = Backoff(
            first_seconds=FIRST_BACKOFF_SECONDS, longest_seconds=LONGEST_BACKOFF_SECONDS
        )
        self.conflicts = 0
        self.seen_version = -1
        self.calm_until = 0.0
        self.summary: str | None = None
        self.phase = ""
        self.uid = ""
        self.haste = Haste.LATER
        self.serves = False
        """Clients may depend on it: news of it never wait behind what is being made."""
        self.told: JSON | None = None
        self.newer_schema = False
        self.runner: asyncio.Task[None] | None = None

    def wake_at(self, due: float) -> None:
        self.due = due if self.due is None else min(self.due, due)
        self.wake.set()

    async def wait(self) -> None:
        """Until woken or due; then both are cleared, before anything is observed."""
        while True:
            self.wake.clear()
            now = time.monotonic()
            due = None if self.due is None else max(self.due, self.not_before)
            if due is not None and due <= now:
                self.due = None
                return
            try:
                async with asyncio.timeout(None if due is None else due - now):
                    await self.wake.wait()
            except TimeoutError:
                continue

    def lateness(self, now: float) -> float:
        """Seconds that this task has been running, or is late."""
        if self.running_since is not None:
            return now - self.running_since
        return 0.0 if self.due is None else now - max(self.due, self.not_before)


class Spine:
    """Runs one reconcile loop per LLMDeployment.

    Args:
        observer: gathers snapshots.
        applier: performs plans.
        decide: the pure decision.
    """

    def __init__(self, observer: Observer, applier: Applier, decide: Decide) -> None:
        self._observer = observer
        self._applier = applier
        self._decide = decide
        self._tasks: dict[Owner, _Task] = {}
        self._turns = Turns(CONCURRENT_RECONCILES, BESIDE_URGENT, URGENT_CALM_SECONDS)
        self._stopping = False
        self._gauges = RolloutGauges()

    def wake(
        self,
        owner: Owner,
        after_seconds: float = 0.0,
        *,
        version: int | None = None,
        calmly: bool = False,
        urgent: bool = False,
        told: JSON | None = None,
    ) -> None:
        """Have an LLMDeployment looked at, now or after a delay; a sooner wake-up wins.

        Args:
            owner: which one.
            after_seconds: the delay.
            urgent: it is new: its next pass goes before those of others.
            told: the resource as an event tells it, which the next pass need not read then; empty
                when it must.
            calmly: at the earliest ``CALM_SECONDS`` after its last pass.
            version: resourceVersion that a watch tells of. One that the last pass read or wrote is
                no news: its write was conditional, so nobody else's is between.
        """
        if self._stopping:
            return
        task = self._tasks.get(owner)
        if task is not None and version is not None and version <= task.seen_version:
            return
        if task is None:
            task = self._tasks[owner] = _Task()
            task.runner = asyncio.create_task(self._run(owner, task), name=f"reconcile {owner}")
        waits = calmly and not task.serves
        task.haste = min(
            task.haste, Haste.URGENT if urgent else Haste.LATER if waits else Haste.ORDINARY
        )
        if told is not None:
            task.told = told or None
        at = time.monotonic() + after_seconds
        task.wake_at(max(at, task.calm_until) if calmly else at)

    def wake_all(self) -> None:
        """Have every known LLMDeployment looked at."""
        for owner in list(self._tasks):
            self.wake(owner)

    def known(self) -> int:
        """How many LLMDeployments have a task."""
        return len(self._tasks)

    def problem(self) -> str | None:
        """A sentence when reconciling has stopped, else None: the liveness check."""
        now = time.monotonic()
        late = [
            owner for owner, task in self._tasks.items() if task.lateness(now) > OVERDUE_SECONDS
        ]
        if not late:
            return None
        names = ", ".join("/".join(owner) for owner in late[:5])
        return f"reconciling has stopped: {len(late)} objects are overdue, {names}"

    async def stop(self, timeout_seconds: float) -> None:
        """Start no new reconcile, wait for those under way, then cancel what is left."""
        self._stopping = True
        runners = {task.runner for task in self._tasks.values() if task.runner is not None}
        idle = {
            task.runner
            for task in self._tasks.values()
            if task.runner is not None and task.running_since is None
        }
        for runner in idle:
            runner.cancel()
        if runners:
            _, late = await asyncio.wait(runners, timeout=timeout_seconds)
            for runner in late:
                runner.cancel()
            if late:
                log.warning("writes in flight were cut off", objects=len(late))

    async def _run(self, owner: Owner, task: _Task) -> None:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(namespace=owner[0], name=owner[1])
        while not self._stopping:
            await task.wait()
            async with self._turns.take(task.haste):
                haste, task.haste = task.haste, Haste.LATER
                task.running_since = started = time.monotonic()
                try:
                    pause = await self._reconcile(owner, task)
                finally:
                    task.running_since = None
                    metrics.RECONCILE_SECONDS.observe(time.monotonic() - started)
            if task.conflicts or task.backoff.failures:
                task.haste = min(task.haste, haste)  # it is to do the same again
            if task.serves:
                task.haste = min(task.haste, Haste.ORDINARY)
            if pause is _Ended.ENDED:
                if task.due is None:
                    break
            elif pause is not None:
                task.wake_at(time.monotonic() + pause)
        if self._tasks.get(owner) is task:
            del self._tasks[owner]
        self._count(task, "")
        self._gauges.forget(owner)
        metrics.NEWER_STATUS_SCHEMA.dec(task.newer_schema)

    async def _reconcile(self, owner: Owner, task: _Task) -> float | _Ended | None:
        """One pass; seconds until the next, None to wait for a wake-up."""
        try:
            async with asyncio.timeout(RECONCILE_TIMEOUT_SECONDS):
                return await self._pass(owner, task)
        except Conflict as error:
            metrics.RECONCILES.labels("conflict").inc()
            log.debug("observed anew after a conflict", error=str(error))
            task.conflicts += 1
            if task.conflicts <= CONFLICTS_WITHOUT_PAUSE:
                return 0.0
            return self._pause_after_failure(task)
        except NotLeading:
            return _Ended.ENDED
        except (ApiError, TimeoutError) as error:
            metrics.RECONCILES.labels("error").inc()
            pause = self._pause_after_failure(task, getattr(error, "retry_after_seconds", None))
            log.warning("API trouble", error=str(error) or "timeout", again_in=round(pause, 1))
            return pause
        except Exception:
            metrics.RECONCILES.labels("crash").inc()
            pause = self._pause_after_failure(task)
            log.exception("reconcile crashed", again_in=round(pause, 1))
            return pause

    async def _pass(self, owner: Owner, task: _Task) -> float | _Ended | None:
        told, task.told = task.told, None
        try:
            snapshot = await self._observer.observe(owner, told)
        except NotFound:
            metrics.RECONCILES.labels("gone").inc()
            self._observer.forget(owner)
            self._applier.forget(task.uid)
            return _Ended.ENDED
        except UnreadableError as error:
            plan = decide_unreadable(error.raw, error.problem, datetime.now(UTC))
            self._tell(owner, task, error.raw, plan)
            await self._applier.record_only(error.raw, plan)
            metrics.RECONCILES.labels("unreadable").inc()
            task.backoff.reset()
            return None
        task.uid = snapshot.raw["metadata"]["uid"]
        plan = self._decide(snapshot, datetime.now(UTC))
        self._tell(owner, task, snapshot.raw, plan)
        applied = await self._applier.apply(snapshot, plan)
        self._observer.expect_routers(owner, snapshot, plan.status)
        metrics.RECONCILES.labels("changed" if applied.changed else "unchanged").inc()
        task.conflicts = 0
        if applied.unfinished:
            return 0.0
        if applied.look_again:
            task.haste = min(task.haste, Haste.ORDINARY)
            return 0.0
        task.backoff.reset()
        task.seen_version = applied.version
        task.not_before = 0.0
        task.calm_until = time.monotonic() + CALM_SECONDS
        return self._requeue(owner, plan, applied)

    def _requeue(self, owner: Owner, plan: Plan, applied: Applied) -> float | None:
        asked = [] if plan.requeue_after is None else [plan.requeue_after]
        if applied.changed:
            asked.append(CALM_SECONDS)  # nobody tells of our own writes
        if self._observer.has_strangers(owner):
            asked.append(STRANGER_RECHECK_SECONDS)
        if not asked:
            return None
        return max(0.05, min(asked)) * random.uniform(1.0, 1.05)  # noqa: S311 - jitter

    def _pause_after_failure(self, task: _Task, at_least: float | None = None) -> float:
        """Back off; events in between may shorten the pause, but not below a second."""
        task.not_before = time.monotonic() + FIRST_BACKOFF_SECONDS
        return max(task.backoff.next_seconds(random.random()), at_least or 0.0)  # noqa: S311 - jitter

    def _tell(self, owner: Owner, task: _Task, raw: JSON, plan: Plan) -> None:
        """One line per changed decision, and the gauges."""
        status = plan.status or {}
        self._count(task, str(status.get("phase") or "Unknown"))
        task.serves = bool(status.get("servedRevision"))
        self._gauges.show(owner, status)
        deleting = bool(raw["metadata"].get("deletionTimestamp"))
        newer_schema = plan.status is None and not deleting
        metrics.NEWER_STATUS_SCHEMA.inc(newer_schema - task.newer_schema)
        task.newer_schema = newer_schema
        if plan.summary == task.summary:
            return
        known = task.summary is None and plan.summary == (raw.get("status") or {}).get("message")
        task.summary = plan.summary
        if known:
            return  # a leader before this one decided it
        log.info(
            plan.summary or "nothing to do",
            generation=raw["metadata"].get("generation"),
            revision=status.get("specRevision"),
            phase=task.phase,
        )

    def _count(self, task: _Task, phase: str) -> None:
        """Move a task from its phase's gauge to another's; none when it ends."""
        if task.phase == phase:
            return
        if task.phase:
            metrics.OBJECTS.labels(task.phase).dec()
        if phase:
            metrics.OBJECTS.labels(phase).inc()
        task.phase = phase
