"""Bugs in how the operator observes and acts, to show that the campaign notices such bugs."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

from llmfleet import tasks
from llmfleet.cluster import (
    applying,
    caches,
    equality,
    kinds,
    observing,
    recording,
    store,
    watching,
)
from llmfleet.cluster.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from tests.faults import seeded_decisions  # noqa: F401 - registers its bugs
from tests.faults.faults import Kind
from tests.faults.planting import BUGS, bug, plant, plant_next_build, swap

__all__ = ["BUGS", "plant", "plant_next_build"]


@bug()
def status_write_skipped() -> None:
    """The decision is not recorded once there is a status."""
    real = recording.Recorder.record

    async def record(self: Any, raw: Any, plan: Any, wanted: Any) -> Any:
        known = (raw.get("status") or {}).get("traffic")
        return raw if known else await real(self, raw, plan, wanted)

    swap(recording.Recorder, "record", record)


@bug(Kind.CONFLICT, workloads={"scale", "update"}, places={"patch deployments"})
def conflict_swallowed() -> None:
    """A change refused as outdated counts as what the API server makes of the intent."""
    real = applying.Applier._change

    async def change(self: Any, snapshot: Any, child: Any, live: Any, found: Any) -> None:
        try:
            await real(self, snapshot, child, live, found)
        except Conflict:
            settled = self._settled.setdefault(snapshot.raw["metadata"]["uid"], {})
            settled[live.uid] = applying._settlement(live.body, child.body)

    swap(applying.Applier, "_change", change)


@bug(Kind.LOSE_REPLY, workloads={"update"}, places={"patch llmdeployments/status"})
def events_lost_with_the_answer() -> None:
    """What a status write without an answer had to publish is lost."""

    async def nothing(*_: Any) -> None:
        return

    swap(recording.Recorder, "_publish_unanswered", nothing)


@bug(Kind.CONFLICT, places={"patch llmdeployments/status"})
def conflict_of_status_swallowed() -> None:
    """A status refused as outdated counts as recorded."""
    real = recording.Recorder.record

    async def record(self: Any, raw: Any, plan: Any, wanted: Any) -> Any:
        try:
            return await real(self, raw, plan, wanted)
        except Conflict:
            return raw

    swap(recording.Recorder, "record", record)


@bug(Kind.GONE, Kind.HIDE, places={"pods"})
def expired_watch_not_listed_again() -> None:
    """410 is answered by watching from the same version again."""
    real = watching.Reflector._watch

    async def watch(self: Any, version: str, backoff: Any) -> None:
        try:
            await real(self, version, backoff)
        except Expired:
            return

    swap(watching.Reflector, "_watch", watch)


@bug(Kind.HIDE, Kind.GONE, workloads={"scale"}, places={"pods"})
def list_keeps_what_is_gone() -> None:
    """A new list only adds."""
    real = store.ObjectStore.begin_list

    def begin_list(self: Any, version: Any, namespace: Any = None) -> Any:
        return replace(real(self, version, namespace), end=lambda: None)

    swap(store.ObjectStore, "begin_list", begin_list)


@bug()
def deletions_not_seen() -> None:
    """DELETED events are dropped."""
    swap(store.ObjectStore, "remove", lambda self, body: None)


@bug(Kind.REORDER, workloads={"create", "scale", "update"}, places={"pods"})
def older_events_taken() -> None:
    """Nobody compares resourceVersions: an event that comes late replaces a newer object."""
    real = store.ObjectStore.put

    def put(self: Any, body: Any) -> None:
        held = self._kept.get((body["metadata"]["namespace"], body["metadata"]["name"]))
        if held is not None:
            held.version = -1
        real(self, body)

    swap(store.ObjectStore, "put", put)
    swap(watching, "version_number", lambda version: -1)


@bug(Kind.CUT, places={"pods"})
def watch_not_resumed() -> None:
    """A watch that breaks is not started again."""
    real = watching.Reflector._watch

    async def watch(self: Any, version: str, backoff: Any) -> None:
        try:
            await real(self, version, backoff)
        except ApiError:
            await asyncio.Event().wait()

    swap(watching.Reflector, "_watch", watch)


@bug(Kind.THROTTLE, Kind.OUTAGE, workloads={"create"})
def failure_not_tried_again() -> None:
    """After trouble with the API server nothing is scheduled."""
    real = tasks.Tasks._reconcile

    async def once(self: Any, owner: Any, task: Any) -> Any:
        pause = await real(self, owner, task)
        return None if isinstance(pause, float) and task.backoff.failures else pause

    swap(tasks.Tasks, "_reconcile", once)


@bug(Kind.OUTAGE, places={"delete "})
def unknown_outcome_taken_for_success() -> None:
    """A deletion without an answer counts as done."""
    real = applying.Applier._delete

    async def delete(self: Any, owner: Any, deletion: Any) -> bool:
        try:
            return bool(await real(self, owner, deletion))
        except Unavailable:
            kind = kinds.kind_of(deletion.key)
            self._caches.deleted(kind, owner[0], deletion.key.name, deletion.uid)
            return True

    swap(applying.Applier, "_delete", delete)


@bug(workloads={"name-taken"})
def existing_child_not_looked_at() -> None:
    """A create refused as existing counts as done; nobody asks whose the object is."""
    real = applying.Applier._create

    async def create(self: Any, snapshot: Any, child: Any) -> None:
        with contextlib.suppress(AlreadyExists):
            await real(self, snapshot, child)

    swap(applying.Applier, "_create", create)
    swap(observing.Observer, "find_by_name", _finds_nothing)


async def _finds_nothing(*_: Any) -> bool:
    return False


@bug(Kind.SLOW, workloads={"create", "update"}, places={"create ", "patch "})
def wake_up_lost_while_busy() -> None:
    """A wake-up that comes while a pass runs counts as answered by that pass, the last one."""
    real = tasks.Tasks._reconcile

    async def clearing(self: Any, owner: Any, task: Any) -> Any:
        pause = await real(self, owner, task)
        woken, task.due = task.due is not None, None
        return None if woken else pause

    swap(tasks.Tasks, "_reconcile", clearing)


@bug()
def resource_read_from_a_cache() -> None:
    """The resource is read once in three times only."""
    real = observing.Observer.observe
    last: dict[Any, Any] = {}

    async def observe(self: Any, owner: Any, from_event: Any = None) -> Any:
        count, snapshot = last.get(owner, (0, None))
        if snapshot is None or count % 3 == 0:
            snapshot = await real(self, owner, from_event)
        last[owner] = (count + 1, snapshot)
        return snapshot

    swap(observing.Observer, "observe", observe)


@bug()
def hand_edits_left() -> None:
    """What others changed in a child stays."""
    real = equality.difference

    def difference(live: Any, intent: Any) -> Any:
        found = real(live, intent)
        return None if found is not None and found.edited_by_others else found

    swap(applying, "difference", difference)


@bug(Kind.KILL_BEFORE, Kind.KILL_AFTER)
def caches_not_awaited() -> None:
    """The first decisions are made before anything was listed."""

    async def at_once(self: Any) -> None:
        return

    swap(caches.Caches, "wait_synced", at_once)
    swap(observing.Observer, "find_by_name", _finds_nothing)


@bug(Kind.THROTTLE, workloads={"create", "update"}, places={"get llmdeployments"})
def failed_read_taken_for_gone() -> None:
    """A resource that cannot be read counts as deleted: nothing is scheduled for it."""
    real = observing.Observer.observe

    async def observe(self: Any, owner: Any, from_event: Any = None) -> Any:
        try:
            return await real(self, owner, from_event)
        except (TooManyRequests, Unavailable) as error:
            raise NotFound(str(error), status=404) from error

    swap(observing.Observer, "observe", observe)
