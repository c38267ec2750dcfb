"""``apply``: make a ``Plan`` true, in its order, each write conditional on the snapshot.

Status first (a decision is recorded before it is acted on), then children, then deletions, then
Events, also after a write that failed. Only the routers' token comes before, since the status names
it. Nothing is sent for what already is as intended.

A new LLMDeployment's engine comes before all else: it takes minutes to start, and a pass that finds
it unrecorded decides the same from the same spec, or removes it.

A resource that an event brought, and that may be out of date, is good enough to see that nothing is
to be done, and for a status, whose write is refused if it is. For everything else it is read.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import structlog

from llmfleet.cluster import metrics
from llmfleet.cluster.caches import Caches, observed_object
from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.equality import Difference, content_fingerprint, difference, json_hash
from llmfleet.cluster.errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound
from llmfleet.cluster.fields import RESOURCE_VERSION, handover_patch, needs_handover
from llmfleet.cluster.kinds import DEPLOYMENT, OWNER_LABEL, SECRET, Kind, kind_of
from llmfleet.cluster.observing import Observer
from llmfleet.cluster.recording import Recorder
from llmfleet.cluster.store import Owner, version_number
from llmfleet.cluster.transitions import Transitions
from llmfleet.planning.plan import Child, ChildMode, Deletion, Plan, PlannedEvent
from llmfleet.planning.snapshot import JSON, ObjectKey, ObservedObject, Snapshot

UNAUTHORIZED: Final = 401
TOKEN_BYTES: Final = 32
TOKEN_KEY: Final = "token"  # noqa: S105 - the name of the key, not a token
REMEMBERING: Final = frozenset({"ConfigMap", "ControllerRevision"})
TOKEN_STATUS: Final = "tokenSecret"  # noqa: S105 - the name of the status field

log: Any = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What applying a plan did.

    Attributes:
        changed: whether any write was sent.
        version: the LLMDeployment's resourceVersion that the plan was made from or its status was
            written at: an event with it or with an older one is not new.
        look_again: what the API server refuses has changed, so the status is not true any more.
        unfinished: a new LLMDeployment's engine was made; all else is left to a pass of its own.
    """

    changed: bool
    version: int
    look_again: bool = False
    unfinished: bool = False


class Applier:
    """Performs plans.

    Args:
        api: where to write.
        caches: get every write's answer.
        observer: learns what is refused, and which names foreign objects have.
        recorder: records a plan before it is performed, and publishes its events.
        transitions: publishes that children were changed by hand.
    """

    def __init__(
        self,
        api: ApiClient,
        caches: Caches,
        observer: Observer,
        recorder: Recorder,
        transitions: Transitions,
    ) -> None:
        self._api = api
        self._caches = caches
        self._observer = observer
        self._recorder = recorder
        self._transitions = transitions
        self._settled: dict[str, dict[str, tuple[str, str]]] = {}
        """By uid of the LLMDeployment and of its child: hashes of an intent and of what it is as
        stored."""
        self._tokens: dict[str, JSON] = {}
        """What the status will say of the routers' token, by uid of a new LLMDeployment."""

    async def apply(self, snapshot: Snapshot, plan: Plan) -> Applied:
        """Perform a plan decided from ``snapshot``.

        Raises:
            Conflict: something changed since the snapshot; nothing after that point was done.
            ApiError: a write got no answer, or a child or a deletion was refused again, as the
                status already says.
        """
        meta = snapshot.raw["metadata"]
        owner: Owner = (meta["namespace"], meta["name"])
        if await self._names_conflict(owner, snapshot, plan):
            raise Conflict("a name the plan needs is in use", status=409)
        version = version_number(meta["resourceVersion"])
        if _is_new(snapshot) and await self._begin(owner, snapshot, plan):
            return Applied(changed=True, version=version, unfinished=True)
        if snapshot.routers_assumed and self._recorder.differs(snapshot.raw, plan.status):
            return Applied(changed=False, version=version, look_again=True)
        refusals: dict[ObjectKey, ApiError] = {}
        token = self._tokens.get(meta["uid"]) or await self._token(plan, refusals)
        status = plan.status and {**plan.status, **token}
        recorded = await self._recorder.record(snapshot.raw, plan, status)
        self._tokens.pop(meta["uid"], None)
        try:
            return await self._perform(owner, snapshot, plan, recorded, refusals)
        finally:
            # The next plan starts from the status and sees no transition: published now or never.
            await self._recorder.publish(snapshot.raw, plan)

    async def _perform(
        self,
        owner: Owner,
        snapshot: Snapshot,
        plan: Plan,
        recorded: JSON,
        refusals: dict[ObjectKey, ApiError],
    ) -> Applied:
        """Write children and deletions, once the status is ``recorded``."""
        changed = recorded is not snapshot.raw
        version = version_number(recorded["metadata"]["resourceVersion"])
        changes = list(self._changes(snapshot, plan))
        if snapshot.from_event and not changed and (changes or plan.deletions):
            return Applied(changed=False, version=version, look_again=True)
        for child, found in changes:
            with _collecting_refusal(child.key, refusals):
                await self._write(snapshot, child, found)
                changed = True
        if not refusals.keys() & {child.key for child in plan.children if _remembers(child.key)}:
            for deletion in plan.deletions:
                with _collecting_refusal(deletion.key, refusals):
                    changed |= await self._delete(owner, deletion)
        differ = self._observer.refused(owner, _sentences(refusals))
        if refusals and not differ:
            raise next(iter(refusals.values()))
        return Applied(changed=changed, version=version, look_again=differ)

    async def _begin(self, owner: Owner, snapshot: Snapshot, plan: Plan) -> bool:
        """Make a new LLMDeployment's engine and what it needs; False when there is none to make.

        One that has a Deployment is not new: its status was lost, and what serves comes first.
        What is refused is left to the passes that follow, which report it.
        """
        known = any(key.kind == DEPLOYMENT.kind for key in snapshot.objects)
        if known or snapshot.refusals:
            return False
        if not any(child.urgent for child in plan.children):
            return False
        refusals: dict[ObjectKey, ApiError] = {}
        self._tokens[snapshot.raw["metadata"]["uid"]] = await self._token(plan, refusals)
        for child, found in self._changes(snapshot, plan):
            if found is None and child.urgent:
                with _collecting_refusal(child.key, refusals):
                    await self._write(snapshot, child, found)
        self._observer.refused(owner, _sentences(refusals))
        return True

    async def _token(self, plan: Plan, refusals: dict[ObjectKey, ApiError]) -> JSON:
        """Make the Secret if the plan has one; what the status says of it, by field.

        Made before a crash kept its uid from being recorded, it is there already; it is never
        read, so its uid stays unknown.
        """
        for child in plan.children:
            if child.key.kind == SECRET.kind:
                uid = ""
                with _collecting_refusal(child.key, refusals), contextlib.suppress(AlreadyExists):
                    answer = await self._api.create(SECRET, _with_token(child.body))
                    uid = answer["metadata"]["uid"]
                if child.key not in refusals:
                    return {TOKEN_STATUS: {"name": child.key.name, "uid": uid}}
        return {}

    async def record_only(self, raw: JSON, plan: Plan) -> None:
        """Write a plan's status and Events; nothing else of it is performed."""
        await self._recorder.record(raw, plan, plan.status)
        await self._recorder.publish(raw, plan)

    def forget(self, uid: str) -> None:
        """Drop what is remembered about an LLMDeployment that is gone."""
        self._recorder.forget(uid)
        self._tokens.pop(uid, None)
        self._settled.pop(uid, None)

    async def _names_conflict(self, owner: Owner, snapshot: Snapshot, plan: Plan) -> bool:
        """Whether something that no watch brings has a name that the plan needs.

        What the status said about it before a restart must not be taken back for a moment. A new
        LLMDeployment has no status yet: it is spared these reads, since a name in use refuses
        the creation.
        """
        if _is_new(snapshot):
            return False
        missing = [
            child.key
            for child in plan.children
            if child.key not in snapshot.objects and child.key.kind != SECRET.kind
        ]
        return bool(missing) and await self._observer.find_by_name(owner, missing)

    def _changes(self, snapshot: Snapshot, plan: Plan) -> Iterator[tuple[Child, Difference | None]]:
        """The children to write, each with what is not as intended; None: it is not there."""
        settled = self._settled_children(snapshot)
        for child in plan.children:
            live = snapshot.objects.get(child.key)
            if child.key.kind == SECRET.kind:
                continue
            if live is None or child.mode is ChildMode.ADOPT:
                yield child, None
                continue
            if live.deleting or child.mode is ChildMode.CREATE_ONCE or not _is_ours(snapshot, live):
                continue
            found = difference(live.body, child.body)
            if found and settled.get(live.uid) != _settlement(live.body, child.body):
                yield child, found

    def _settled_children(self, snapshot: Snapshot) -> dict[str, tuple[str, str]]:
        """What is known of the children that are there; those that are gone are forgotten."""
        uid = snapshot.raw["metadata"]["uid"]
        settled = self._settled.pop(uid, {})
        if settled:
            there = {child.uid for child in snapshot.objects.values()}
            settled = {child: known for child, known in settled.items() if child in there}
        if settled:
            self._settled[uid] = settled
        return settled

    async def _write(self, snapshot: Snapshot, child: Child, found: Difference | None) -> None:
        if child.mode is ChildMode.ADOPT:
            await self._adopt(snapshot, child)
        elif found is None:
            await self._create(snapshot, child)
        else:
            await self._change(snapshot, child, snapshot.objects[child.key], found)

    async def _create(self, snapshot: Snapshot, child: Child) -> None:
        meta = snapshot.raw["metadata"]
        try:
            answer = await self._api.create(kind_of(child.key), child.body)
        except AlreadyExists:
            # The plan was made without knowing it: foreign, or ours that no watch has brought.
            await self._observer.find_by_name((meta["namespace"], meta["name"]), [child.key])
            raise
        self._remember(snapshot, answer, child.body)
        log.debug("child created", child=_label(child.key))

    async def _change(
        self, snapshot: Snapshot, child: Child, live: ObservedObject, found: Difference
    ) -> None:
        kind = kind_of(child.key)
        meta = snapshot.raw["metadata"]
        version = live.resource_version
        try:
            if needs_handover(live.body, child.body):
                version = await self._take_over(kind, meta["namespace"], live)
            answer = await self._api.apply(kind, child.body, resource_version=version)
        except (Conflict, NotFound) as error:
            await self._observer.refresh((meta["namespace"], meta["name"]), child.key, live.uid)
            raise Conflict(str(error), status=409) from error
        self._remember(snapshot, answer, child.body)
        if found.edited_by_others:
            metrics.CHILD_EDITS.labels(child.key.kind).inc()
            sentence = f"{_label(child.key)} was changed by hand and put back: {found.sentence()}"
            event = PlannedEvent(type="Warning", reason="ChildEdited", message=sentence)
            await self._transitions.publish(snapshot.raw, event, snapshot.raw.get("status"))

    async def _adopt(self, snapshot: Snapshot, child: Child) -> None:
        live, owner = snapshot.objects[child.key], snapshot.raw["metadata"]
        patch = [
            {"op": "test", "path": RESOURCE_VERSION, "value": live.resource_version},
            {
                "op": "add",
                "path": "/metadata/ownerReferences",
                "value": child.body["metadata"]["ownerReferences"],
            },
        ]
        kind, name = kind_of(child.key), child.key.name
        try:
            answer = await self._api.json_patch(kind, owner["namespace"], name, patch)
        except (Conflict, NotFound) as error:
            await self._observer.refresh((owner["namespace"], owner["name"]), child.key, live.uid)
            raise Conflict(str(error), status=409) from error
        self._caches.written(answer)

    async def _take_over(self, kind: Kind, namespace: str, live: ObservedObject) -> str:
        """Own all of a child's content; its new resourceVersion.

        It is read again, since caches do not keep who owns its status.
        """
        path = kind.path(namespace, live.key.name)
        body = await self._api.get(path)
        if body["metadata"]["resourceVersion"] != live.resource_version:
            raise Conflict(f"{path} has changed", status=409)
        patched = await self._api.json_patch(kind, namespace, live.key.name, handover_patch(body))
        return str(patched["metadata"]["resourceVersion"])

    def _remember(self, snapshot: Snapshot, answer: JSON, intent: JSON) -> None:
        """Remember the answer of a write, and that it is what this intent becomes here.

        Should a normalisation unknown to ``difference`` (an admission webhook, say) make them look
        different for ever, the answer to exactly this intent counts as equal to it.
        """
        child = observed_object(answer)
        self._caches.written(answer)
        settled = self._settled.setdefault(snapshot.raw["metadata"]["uid"], {})
        settled.pop(child.uid, None)
        if difference(answer, intent) is not None:
            log.warning("the API server stores a child otherwise", child=_label(child.key))
            settled[child.uid] = _settlement(answer, intent)

    async def _delete(self, owner: Owner, deletion: Deletion) -> bool:
        kind = kind_of(deletion.key)
        try:
            answer = await self._api.delete(
                kind,
                owner[0],
                deletion.key.name,
                uid=deletion.uid,
                resource_version=deletion.resource_version,
            )
        except (Conflict, NotFound) as error:
            await self._observer.refresh(owner, deletion.key, deletion.uid)
            raise Conflict(str(error), status=409) from error
        if (answer.get("metadata") or {}).get("deletionTimestamp"):
            self._caches.written(answer)  # it waits for a finalizer
        else:
            self._caches.deleted(kind, owner[0], deletion.key.name, deletion.uid)
        return True


def _is_new(snapshot: Snapshot) -> bool:
    return not (snapshot.raw.get("status") or {}).get("phase")


def _is_ours(snapshot: Snapshot, live: ObservedObject) -> bool:
    """Owned by exactly this object; the ownerless memory is known by its label."""
    meta = snapshot.raw["metadata"]
    if live.owner_uid is not None:
        return bool(live.owner_uid == meta["uid"])
    labels = live.body["metadata"].get("labels") or {}
    return bool(labels.get(OWNER_LABEL) == meta["name"])


@contextlib.contextmanager
def _collecting_refusal(key: ObjectKey, refusals: dict[ObjectKey, ApiError]) -> Iterator[None]:
    """Go on after a refusal of this one child, but not without access to the API server."""
    try:
        yield
    except (Forbidden, Invalid) as error:
        if error.status == UNAUTHORIZED:
            raise
        refusals[key] = error


def _remembers(key: ObjectKey) -> bool:
    """Whether a child keeps what must not be lost: it is written before anything is taken away.

    Deletions wait for no other child. What they take away was left by the traffic in a pass before
    this one, and may be what holds accelerators.
    """
    return key.kind in REMEMBERING


def _sentences(refusals: dict[ObjectKey, ApiError]) -> dict[ObjectKey, str]:
    return {key: str(error) for key, error in refusals.items()}


def _with_token(body: JSON) -> JSON:
    token = secrets.token_urlsafe(TOKEN_BYTES).encode()
    return {**body, "data": {TOKEN_KEY: base64.b64encode(token).decode()}}


def _settlement(live: JSON, intent: JSON) -> tuple[str, str]:
    return json_hash(intent), content_fingerprint(live)


def _label(key: ObjectKey) -> str:
    return f"{key.kind}/{key.name}"
