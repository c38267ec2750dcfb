"""``observe``: everything known about one LLMDeployment, as a ``Snapshot``."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, Protocol

from pydantic import ValidationError

from llmfleet.api import LLMDeployment, clean_line, parse
from llmfleet.cluster.caches import Caches, observed_object
from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.errors import NotFound
from llmfleet.cluster.inspecting import PodInspector
from llmfleet.cluster.kinds import LLM_DEPLOYMENT, OWNER_LABEL, kind_of
from llmfleet.cluster.ledger import LedgerPoller
from llmfleet.cluster.routers import RouterPoller, routers_of
from llmfleet.cluster.store import Owner
from llmfleet.planning.children.naming import memory_key, revision_name, router_name
from llmfleet.planning.facts.pods import is_made_for
from llmfleet.planning.snapshot import (
    JSON,
    ObjectKey,
    ObservedObject,
    ObservedPod,
    OperatorSettings,
    Snapshot,
)

FIRST_ANSWER_SECONDS: Final = 2.0


class SettingsSource(Protocol):
    """Whoever knows the operator's settings now (the CRD may be upgraded while it runs)."""

    def current(self) -> OperatorSettings:
        """Settings as of this moment."""


class UnreadableError(Exception):
    """The models cannot read a stored resource.

    Attributes:
        raw: the resource as stored.
        problem: field and reason of each mistake, in one line.
    """

    def __init__(self, raw: JSON, error: ValidationError) -> None:
        self.raw = raw
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        self.problem = clean_line(
            "; ".join(
                f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"
                for one in mistakes[:5]
            )
        )
        super().__init__(self.problem)


class Observer:
    """Gathers snapshots from the caches, the routers' last answers and one GET."""

    def __init__(
        self,
        api: ApiClient,
        caches: Caches,
        routers: RouterPoller,
        ledger: LedgerPoller,
        inspector: PodInspector,
        settings: SettingsSource,
    ) -> None:
        self._inspector = inspector
        self._ledger = ledger
        self._api = api
        self._caches = caches
        self._routers = routers
        self._settings = settings
        self._foreign: dict[Owner, dict[ObjectKey, ObservedObject]] = defaultdict(dict)
        self._refusals: dict[Owner, dict[ObjectKey, str]] = {}

    async def observe(self, owner: Owner, from_event: JSON | None = None) -> Snapshot:
        """Gather all facts about one LLMDeployment.

        Args:
            owner: which one.
            from_event: the resource as an event brought it; then it is not read, and no router is
                waited for.

        The memory is asked for by name if the cache does not have it: what it says was rejected
        must be known before the first decision, not when its creation is refused.

        Raises:
            NotFound: the LLMDeployment is gone.
            UnreadableError: it was stored under a CRD that allowed what the models do not.
        """
        raw = from_event or await self._api.get(LLM_DEPLOYMENT.path(*owner))
        try:
            deployment = parse(raw)
        except ValidationError as error:
            raise UnreadableError(raw, error) from error
        await self._recheck_foreign(owner)
        objects = self._caches.children(owner)
        if memory_key(owner[1]) not in objects and await self.find_by_name(
            owner, [memory_key(owner[1])]
        ):
            objects = self._caches.children(owner)
        pods = self._inspect(owner, self._caches.pods(owner))
        status = raw.get("status") or {}
        confirmed = from_event is not None and _says_confirmed(status)
        self._track(owner, deployment, pods, status, confirmed=confirmed)
        if not confirmed:
            ready = (pod.name for pod in pods if pod.component == "router" and pod.ready)
            await self._routers.wait_asked(owner, ready, FIRST_ANSWER_SECONDS)
        return Snapshot(
            settings=self._settings.current(),
            deployment=deployment,
            raw=raw,
            objects={**self._foreign.get(owner, {}), **objects},
            pods=pods,
            routers=self._routers.reports(owner),
            refusals=self._refusals.get(owner, {}),
            replica_sets=self._caches.replica_sets(owner),
            requests=self._ledger.report(owner),
            from_event=from_event is not None,
            routers_assumed=self._routers.assumed(owner),
        )

    def forget(self, owner: Owner) -> None:
        """Drop what is remembered about an LLMDeployment that is gone."""
        self._foreign.pop(owner, None)
        self._refusals.pop(owner, None)
        self._inspector.forget(owner)
        self._routers.forget(owner)
        self._ledger.forget(owner)

    def expect_routers(self, owner: Owner, snapshot: Snapshot, status: JSON | None) -> None:
        """Wait from now on for the traffic command that was just recorded."""
        if status is not None:
            self._track(owner, snapshot.deployment, snapshot.pods, status)

    def _inspect(self, owner: Owner, pods: tuple[ObservedPod, ...]) -> tuple[ObservedPod, ...]:
        """The pods with what was asked about them; nothing is asked about anybody else's."""
        made = [pod for pod in pods if is_made_for(pod, _deployment_of(owner, pod))]
        known = {pod.name: pod for pod in self._inspector.track(owner, made)}
        return tuple(known.get(pod.name, pod) for pod in pods)

    def _track(
        self,
        owner: Owner,
        deployment: LLMDeployment,
        pods: Sequence[ObservedPod],
        status: JSON,
        *,
        confirmed: bool = False,
    ) -> None:
        uid, generation = deployment.metadata.uid, status.get("trafficGeneration")
        # Nobody else's pod is asked, whatever its labels say.
        routers = [pod for pod in pods if is_made_for(pod, router_name(owner[1]))]
        self._routers.track(owner, routers, generation, uid=uid, confirmed=confirmed)
        self._ledger.track(
            owner,
            status,
            [router for _, router in routers_of(owner, uid, routers)],
            deployment.spec.rollout.analysis.first_token_timeout_seconds,
        )

    async def close(self) -> None:
        """Ask neither routers nor about pods any more."""
        await self._inspector.close()
        await self._routers.close()
        await self._ledger.close()

    def refused(self, owner: Owner, refusals: dict[ObjectKey, str]) -> bool:
        """Take the children that the API server refused just now; later snapshots hold them.

        Returns whether they differ from those that the present status was decided with.
        """
        before = self._refusals.pop(owner, {})
        if refusals:
            self._refusals[owner] = refusals
        return before != refusals

    def has_foreign(self, owner: Owner) -> bool:
        """Whether foreign objects have names that we need; no watch says when they become free."""
        return bool(self._foreign.get(owner))

    async def find_by_name(self, owner: Owner, keys: list[ObjectKey]) -> bool:
        """Look for objects by name, whoever made them.

        What is found is part of every later snapshot until it is gone. Returns whether anything
        was found.
        """
        found = await asyncio.gather(*(self._get(owner, key) for key in keys))
        for body in found:
            if body is not None:
                self._remember(owner, body)
        return any(body is not None for body in found)

    async def refresh(self, owner: Owner, key: ObjectKey, uid: str) -> None:
        """Read a child anew after a write of it was refused as outdated."""
        body = await self._get(owner, key)
        if body is None or body["metadata"]["uid"] != uid:
            self._caches.deleted(kind_of(key), owner[0], key.name, uid)
            self._foreign.get(owner, {}).pop(key, None)
        if body is not None:
            self._remember(owner, body)

    async def _get(self, owner: Owner, key: ObjectKey) -> JSON | None:
        try:
            return await self._api.get(kind_of(key).path(owner[0], key.name))
        except NotFound:
            return None

    def _remember(self, owner: Owner, body: JSON) -> None:
        labels = body["metadata"].get("labels") or {}
        child = observed_object(body)
        if labels.get(OWNER_LABEL) == owner[1]:
            self._caches.written(body)
            self._foreign.get(owner, {}).pop(child.key, None)
        else:
            self._foreign[owner][child.key] = child

    async def _recheck_foreign(self, owner: Owner) -> None:
        keys = list(self._foreign.get(owner, {}))
        if not keys:
            return
        self._foreign.pop(owner)
        await self.find_by_name(owner, keys)


def _deployment_of(owner: Owner, pod: ObservedPod) -> str:
    """Name of the Deployment that a pod's labels name."""
    if pod.component == "engine":
        return revision_name(owner[1], pod.revision or "")
    return router_name(owner[1])


def _says_confirmed(status: JSON) -> bool:
    """Whether the status says that every ready router serves the traffic command.

    Enough to see that there is nothing to do. A new leader of a thousand resources would ask two
    thousand routers before anything else.
    """
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or []}
    return conditions.get("RoutersConfirmed") == "True"
