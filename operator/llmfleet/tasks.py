"""When each LLMDeployment is reconciled: its task's waking, waiting, priority and backoff.

Level-triggered: a wake-up says only "look again". The wake-up is cleared before reconciling, so a
change that arrives meanwhile causes another pass, and nothing is lost. One object's trouble never
delays another's: each has its own task and backoff, and they share only a limit on how many
reconcile at the same time.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

import structlog

from llmfleet.cluster import metrics
from llmfleet.cluster.backoff import Backoff
from llmfleet.cluster.errors import ApiError, Conflict, NotLeading
from llmfleet.cluster.priority import Priority, PrioritySemaphore
from llmfleet.cluster.store import Owner
from llmfleet.planning.snapshot import JSON

CONCURRENT_RECONCILES: Final = 64
"""The passes of a new object wait for some 16 writes, one after the other; making a Role alone
takes the API server 0.4 s under load, since it looks up what its maker may grant."""
BESIDE_URGENT: Final = {Priority.NORMAL: 4, Priority.LOW: 1}
"""Passes of other objects at the same time while new ones wait for their engines."""
URGENT_LINGER_SECONDS: Final = 1.0
RECONCILE_TIMEOUT_SECONDS: Final = 120.0
OVERDUE_SECONDS: Final = 300.0
"""A reconcile that is this late, or runs this long, means that reconciling has stopped."""
FIRST_BACKOFF_SECONDS: Final = 1.0
LONGEST_BACKOFF_SECONDS: Final = 300.0
CONFLICTS_WITHOUT_PAUSE: Final = 5
BATCH_SECONDS: Final = 1.0
"""From a pass of one object to the next for events of its children, which come in bursts. What
people write and routers confirm is looked at at once."""

log: Any = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The pass did all there is to do for now.

    Attributes:
        version: resourceVersion of the object that the pass read, or wrote last.
        serves: clients may depend on the object, so its events wait behind no others.
        requeue_after: seconds until the next pass; None waits for a wake-up.
    """

    version: int
    serves: bool
    requeue_after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """Another pass has to follow at once.

    Attributes:
        priority: of that pass.
    """

    priority: Priority


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no such object any more."""


Outcome = Done | Unfinished | Gone


class Work(Protocol):
    """What the tasks do when it is time."""

    async def reconcile(self, owner: Owner, from_event: JSON | None) -> Outcome:
        """One pass over an object; ``from_event`` is the object if an event brought it, else None.

        Raises:
            Conflict: something changed meanwhile; the pass is repeated at once.
            NotLeading: this process may not write any more; the task ends.
            ApiError: the API server is in trouble; the pass is repeated after a pause.
        """

    def forget(self, owner: Owner) -> None:
        """The object's task has ended."""


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
        self.batch_until = 0.0
        self.priority = Priority.LOW
        self.serves = False
        self.from_event: JSON | None = None
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

    def conclude(self, outcome: Outcome) -> float | _Ended | None:
        """Take the outcome of a pass; seconds until the next, None to wait for a wake-up."""
        match outcome:
            case Gone():
                return _Ended.ENDED
            case Unfinished(priority=priority):
                self.conflicts = 0
                self.priority = min(self.priority, priority)
                return 0.0
            case Done(version=version, serves=serves, requeue_after=requeue_after):
                self.conflicts = 0
                self.backoff.reset()
                self.seen_version, self.serves = version, serves
                self.not_before = 0.0
                self.batch_until = time.monotonic() + BATCH_SECONDS
                return requeue_after

    def pause_after_failure(self, at_least: float | None = None) -> float:
        """Back off; events in between may shorten the pause, but not below a second."""
        self.not_before = time.monotonic() + FIRST_BACKOFF_SECONDS
        return max(self.backoff.next_seconds(random.random()), at_least or 0.0)  # noqa: S311 - jitter


class Tasks:
    """One task per LLMDeployment.

    Args:
        work: what each does when it is time.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._tasks: dict[Owner, _Task] = {}
        self._semaphore = PrioritySemaphore(
            CONCURRENT_RECONCILES, BESIDE_URGENT, URGENT_LINGER_SECONDS
        )
        self._stopping = False

    def wake(
        self,
        owner: Owner,
        after_seconds: float = 0.0,
        *,
        version: int | None = None,
        batch: bool = False,
        urgent: bool = False,
        from_event: JSON | None = None,
    ) -> None:
        """Have an LLMDeployment looked at, now or after a delay; a sooner wake-up wins.

        Args:
            owner: which one.
            after_seconds: the delay.
            urgent: it is new: its next pass goes before those of others.
            from_event: the resource as an event brought it, which the next pass need not read
                then; empty when it must.
            batch: at the earliest ``BATCH_SECONDS`` after its last pass.
            version: resourceVersion that a watch brought. One that the last pass read or wrote is
                not new: its write was conditional, so nobody else's is between.
        """
        if self._stopping:
            return
        task = self._tasks.get(owner)
        if task is not None and version is not None and version <= task.seen_version:
            return
        if task is None:
            task = self._tasks[owner] = _Task()
            task.runner = asyncio.create_task(self._run(owner, task), name=f"reconcile {owner}")
        waits = batch and not task.serves
        task.priority = min(
            task.priority, Priority.HIGH if urgent else Priority.LOW if waits else Priority.NORMAL
        )
        if from_event is not None:
            task.from_event = from_event or None
        at = time.monotonic() + after_seconds
        task.wake_at(max(at, task.batch_until) if batch else at)

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
            async with self._semaphore.acquire(task.priority):
                priority, task.priority = task.priority, Priority.LOW
                task.running_since = started = time.monotonic()
                try:
                    pause = await self._reconcile(owner, task)
                finally:
                    task.running_since = None
                    metrics.RECONCILE_SECONDS.observe(time.monotonic() - started)
            if task.conflicts or task.backoff.failures:
                task.priority = min(task.priority, priority)  # it is to do the same again
            if task.serves:
                task.priority = min(task.priority, Priority.NORMAL)
            if pause is _Ended.ENDED:
                if task.due is None:
                    break
            elif pause is not None:
                task.wake_at(time.monotonic() + pause)
        if self._tasks.get(owner) is task:
            del self._tasks[owner]
        self._work.forget(owner)

    async def _reconcile(self, owner: Owner, task: _Task) -> float | _Ended | None:
        """One pass; seconds until the next, None to wait for a wake-up."""
        from_event, task.from_event = task.from_event, None
        try:
            async with asyncio.timeout(RECONCILE_TIMEOUT_SECONDS):
                return task.conclude(await self._work.reconcile(owner, from_event))
        except Conflict as error:
            metrics.RECONCILES.labels("conflict").inc()
            log.debug("observed anew after a conflict", error=str(error))
            task.conflicts += 1
            if task.conflicts <= CONFLICTS_WITHOUT_PAUSE:
                return 0.0
            return task.pause_after_failure()
        except NotLeading:
            return _Ended.ENDED
        except (ApiError, TimeoutError) as error:
            metrics.RECONCILES.labels("error").inc()
            pause = task.pause_after_failure(getattr(error, "retry_after_seconds", None))
            log.warning("API trouble", error=str(error) or "timeout", again_in=round(pause, 1))
            return pause
        except Exception:
            metrics.RECONCILES.labels("crash").inc()
            pause = task.pause_after_failure()
            log.exception("reconcile crashed", again_in=round(pause, 1))
            return pause
