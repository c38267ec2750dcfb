"""Bugs planted into the operator under test, to show that the campaign notices such bugs.

Each is a mistake that somebody could make, put in by replacing one function of the operator in the
process that the campaign starts. Production code knows nothing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from llmfleet import __main__ as program
from llmfleet import reconcile
from llmfleet.cluster import (
    applying,
    caches,
    equality,
    events,
    kinds,
    observing,
    store,
    watching,
)
from llmfleet.cluster.errors import AlreadyExists, ApiError, Conflict, Expired, Unavailable
from llmfleet.planning import (
    decide,
    engine,
    facts,
    memory,
    naming,
    revisions,
    rollout,
    router,
    status,
)
from llmfleet.planning.plan import Plan
from tests.faults.faults import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A mistake that can be planted."""

    patch: Callable[[], None]
    shown_by: frozenset[Kind]
    """Kinds of faults that bring it to light, tried first; none: most plans would."""


BUGS: dict[str, Bug] = {}


def bug(*shown_by: Kind) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a bug under its function's name."""

    def register(patch: Callable[[], None]) -> Callable[[], None]:
        name = patch.__name__.replace("_", "-")
        BUGS[name] = Bug(patch=patch, shown_by=frozenset(shown_by))
        return patch

    return register


def plant(name: str) -> None:
    """Put a bug into this process.

    Raises:
        KeyError: there is none of that name.
    """
    BUGS[name].patch()


def plant_next_build() -> None:
    """Make this process another build of the operator: it renders engine pods differently."""
    render = engine.build_pod_template

    def other(*arguments: Any) -> Any:
        template = render(*arguments)
        containers = template["spec"]["containers"]
        containers[0]["env"] = [*containers[0]["env"], {"name": "NEXT_BUILD", "value": "yes"}]
        return template

    if os.environ.get("LLMFLEET_TEST_NEXT_BUILD"):
        _set(revisions, "build_pod_template", other)


def _set(target: Any, name: str, value: Any) -> None:
    getattr(target, name)  # a bug in what is not there any more would be none
    setattr(target, name, value)


@bug()
def status_write_skipped() -> None:
    """The decision is not recorded once there is a status."""
    real = applying.Applier.record

    async def record(self: Any, raw: Any, wanted: Any) -> Any:
        return raw if (raw.get("status") or {}).get("traffic") else await real(self, raw, wanted)

    _set(applying.Applier, "record", record)


@bug()
def owner_reference_missing() -> None:
    """Services are not owned by their LLMDeployment."""
    real = naming.make_child

    def make_child(deployment: Any, key: Any, *rest: Any, **options: Any) -> Any:
        owned = options.pop("owned", True) and key.kind != "Service"
        return real(deployment, key, *rest, owned=owned, **options)

    for module in (engine, memory, decide):
        if hasattr(module, "make_child"):
            _set(module, "make_child", make_child)


@bug()
def traffic_before_ready() -> None:
    """The new revision gets its share as soon as it is wanted."""
    _set(rollout, "_share", lambda *arms, **way: 100)


@bug()
def scale_down_before_routers_confirm() -> None:
    """Nobody waits for the routers."""
    real = facts.read_facts

    def read_facts(*arguments: Any) -> Any:
        seen = real(*arguments)
        return replace(seen, routers=replace(seen.routers, confirmed=True, lagging=()))

    _set(decide, "read_facts", read_facts)


@bug()
def template_rendered_anew() -> None:
    """The Deployment is applied from today's rendering, not from the frozen one."""
    real = decide._children

    def children(snapshot: Any, seen: Any, plan: Any, made: Any, remembered: Any) -> Any:
        spec_revision = revisions.revision_hash(revisions.spec_payload(snapshot.raw))
        fresh = revisions.render_revision(snapshot.deployment, snapshot.raw, snapshot.settings, 1)
        known = {**seen.revisions, spec_revision: fresh}
        return real(snapshot, replace(seen, revisions=known), plan, made, remembered)

    _set(decide, "_children", children)


@bug()
def memory_forgets_the_last_good() -> None:
    """What was promoted is not remembered."""
    real = memory.build_memory
    _set(decide, "build_memory", lambda d, m: real(d, replace(m, last_good=None)))


@bug(Kind.CONFLICT)
def conflict_swallowed() -> None:
    """A change refused as outdated counts as done."""
    real = applying.Applier._change

    async def change(self: Any, *arguments: Any) -> None:
        with contextlib.suppress(Conflict):
            await real(self, *arguments)

    _set(applying.Applier, "_change", change)


@bug(Kind.CONFLICT)
def conflict_of_status_swallowed() -> None:
    """A status refused as outdated counts as recorded."""
    real = applying.Applier.record

    async def record(self: Any, raw: Any, wanted: Any) -> Any:
        try:
            return await real(self, raw, wanted)
        except Conflict:
            return raw

    _set(applying.Applier, "record", record)


@bug(Kind.GONE, Kind.HIDE)
def expired_watch_not_listed_again() -> None:
    """410 is answered by watching from the same version again."""
    real = watching.Reflector._watch

    async def watch(self: Any, version: str, backoff: Any) -> None:
        try:
            await real(self, version, backoff)
        except Expired:
            return

    _set(watching.Reflector, "_watch", watch)


@bug(Kind.HIDE, Kind.GONE)
def list_keeps_what_is_gone() -> None:
    """A new list only adds."""

    real = store.ObjectStore.begin_list

    def begin_list(self: Any, version: Any, namespace: Any = None) -> Any:
        return replace(real(self, version, namespace), end=lambda: None)

    _set(store.ObjectStore, "begin_list", begin_list)


@bug()
def deletions_not_seen() -> None:
    """DELETED events are dropped."""
    _set(store.ObjectStore, "remove", lambda self, body: None)


@bug(Kind.REORDER, Kind.DUPLICATE)
def older_events_taken() -> None:
    """An event that comes late replaces a newer object."""
    real = store.ObjectStore.put

    def put(self: Any, body: Any) -> None:
        held = self._kept.get((body["metadata"]["namespace"], body["metadata"]["name"]))
        if held is not None:
            held.version = -1
        real(self, body)

    _set(store.ObjectStore, "put", put)


@bug(Kind.CUT, Kind.OUTAGE)
def watch_not_resumed() -> None:
    """A watch that breaks is not started again."""
    real = watching.Reflector._watch

    async def watch(self: Any, version: str, backoff: Any) -> None:
        try:
            await real(self, version, backoff)
        except ApiError:
            await asyncio.Event().wait()

    _set(watching.Reflector, "_watch", watch)


@bug(Kind.OUTAGE, Kind.THROTTLE)
def failure_not_tried_again() -> None:
    """After trouble with the API server nothing is scheduled."""
    real = reconcile.Spine._reconcile

    async def once(self: Any, owner: Any, task: Any) -> Any:
        pause = await real(self, owner, task)
        return None if isinstance(pause, float) and task.backoff.failures else pause

    _set(reconcile.Spine, "_reconcile", once)


@bug(Kind.LOSE_REPLY)
def unknown_outcome_taken_for_success() -> None:
    """A create without an answer counts as done, and is not looked at again."""
    real = applying.Applier._create

    async def create(self: Any, snapshot: Any, child: Any) -> None:
        with contextlib.suppress(Unavailable):
            await real(self, snapshot, child)

    _set(applying.Applier, "_create", create)


@bug(Kind.LOSE_REPLY)
def existing_child_not_looked_at() -> None:
    """A create refused as existing leaves the cache as it is."""
    real = applying.Applier._create

    async def create(self: Any, snapshot: Any, child: Any) -> None:
        with contextlib.suppress(AlreadyExists):
            await real(self, snapshot, child)

    _set(applying.Applier, "_create", create)
    _set(observing.Observer, "find_by_name", _finds_nothing)


async def _finds_nothing(*_: Any) -> bool:
    return False


@bug()
def wake_up_lost_while_busy() -> None:
    """Wake-ups are cleared after the reconcile instead of before it."""
    real = reconcile.Spine._reconcile

    async def clearing(self: Any, owner: Any, task: Any) -> Any:
        pause = await real(self, owner, task)
        task.due = None
        return pause

    _set(reconcile.Spine, "_reconcile", clearing)


@bug()
def resource_read_from_a_cache() -> None:
    """The resource is read once in three times only."""
    real = observing.Observer.observe
    last: dict[Any, Any] = {}

    async def observe(self: Any, owner: Any, told: Any = None) -> Any:
        count, snapshot = last.get(owner, (0, None))
        if snapshot is None or count % 3 == 0:
            snapshot = await real(self, owner, told)
        last[owner] = (count + 1, snapshot)
        return snapshot

    _set(observing.Observer, "observe", observe)


@bug(Kind.STALE_LIST)
def told_resource_trusted() -> None:
    """Children follow from what an event told, however old it is."""
    real = observing.Observer.observe

    async def observe(self: Any, owner: Any, told: Any = None) -> Any:
        return replace(await real(self, owner, told), told=False, routers_believed=False)

    _set(observing.Observer, "observe", observe)


@bug()
def hand_edits_left() -> None:
    """What others changed in a child stays."""
    real = equality.difference

    def difference(live: Any, intent: Any) -> Any:
        found = real(live, intent)
        return None if found is not None and found.edited_by_others else found

    _set(applying, "difference", difference)


@bug()
def traffic_generation_reused() -> None:
    """Another split under the same number: routers do not notice."""
    _set(status, "next_generation", lambda seen, plan: seen.generation or 1)


@bug()
def old_revision_deleted_first() -> None:
    """The old revision's Deployment is deleted when the rollout starts."""
    real = decide.decide

    def early(snapshot: Any, now: Any) -> Plan:
        plan = real(snapshot, now)
        target = ((plan.status or {}).get("rollout") or {}).get("revision")
        served = (plan.status or {}).get("servedRevision")
        if not target or not served:
            return plan
        key = naming.deployment_key(snapshot.deployment.metadata.name, served)
        found = snapshot.objects.get(key)
        children = tuple(child for child in plan.children if child.key != key)
        gone = decide._deletions(snapshot, replace(_no_plan(), removed=(served,)), ())
        return replace(plan, children=children, deletions=gone if found else ())

    _set(decide, "decide", early)
    _set(program, "decide", early)


def _no_plan() -> rollout.RolloutPlan:
    return rollout.RolloutPlan(
        stable=None, target=None, replicas={}, traffic={}, warm={}, removed=()
    )


@bug(Kind.KILL_BEFORE, Kind.KILL_AFTER)
def token_name_of_the_process() -> None:
    """Every start of the operator makes a token Secret of its own."""

    def token_name(deployment: Any) -> str:
        return f"{deployment.metadata.name}-token-{os.getpid()}"

    for module in (naming, decide, engine, router):
        if hasattr(module, "token_name"):
            _set(module, "token_name", token_name)


@bug(Kind.KILL_BEFORE, Kind.KILL_AFTER)
def caches_not_awaited() -> None:
    """The first decisions are made before anything was listed."""

    async def at_once(self: Any) -> None:
        return

    _set(caches.Caches, "wait_synced", at_once)
    _set(observing.Observer, "find_by_name", _finds_nothing)


@bug(Kind.KILL_BEFORE, Kind.KILL_AFTER)
def deletions_skipped_after_a_crash() -> None:
    """A revision that was to be deleted is forgotten when the operator starts again."""
    real = decide.decide
    first: list[bool] = []

    def forgetful(snapshot: Any, now: Any) -> Plan:
        plan = real(snapshot, now)
        first.append(True)
        return plan if len(first) > 1 else replace(plan, deletions=(), requeue_after=None)

    _set(program, "decide", forgetful)


@bug(Kind.OUTAGE, Kind.THROTTLE)
def event_trouble_stops_the_plan() -> None:
    """A failed Event ends the reconcile for good."""

    async def post(self: Any, raw: Any, event: Any) -> None:
        body = events.build_event(raw, event, self._instance, datetime.now(UTC))
        await self._api.create(kinds.EVENT, body)

    _set(events.EventRecorder, "post", post)
    failure_not_tried_again()
