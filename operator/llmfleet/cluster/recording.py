"""Records a decision in the status before it is acted on, and publishes its events afterwards.

A status write that gets no answer may have been carried out, and the pass that follows then finds
the status as it wants it and has no events. So the events of such a write wait here until the
status is seen stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.crd_check import prune
from llmfleet.cluster.equality import json_hash
from llmfleet.cluster.fields import RESOURCE_VERSION
from llmfleet.cluster.kinds import LLM_DEPLOYMENT
from llmfleet.cluster.transitions import Transitions
from llmfleet.planning.plan import Plan
from llmfleet.planning.snapshot import JSON


@dataclass(frozen=True, slots=True)
class _Unanswered:
    """A status write whose outcome is not known."""

    raw: JSON
    """The LLMDeployment that the plan was decided from."""
    plan: Plan
    status: JSON


class Recorder:
    """Writes the status of LLMDeployments.

    Args:
        api: where to.
        transitions: publishes the events and counts the outcome of every plan that is recorded.
    """

    def __init__(self, api: ApiClient, transitions: Transitions) -> None:
        self._api = api
        self._transitions = transitions
        self.schema: JSON | None = None
        """Schema of the installed CRD's status while the CRD is outdated: what is not in it is
        not written. None writes everything."""
        self._settled: dict[str, tuple[str, str]] = {}
        """By uid of the LLMDeployment: hashes of a status and of what it is as stored."""
        self._unanswered: dict[str, _Unanswered] = {}
        """By uid of the LLMDeployment."""

    async def record(self, raw: JSON, plan: Plan, status: JSON | None) -> JSON:
        """Write the status if it differs from the stored one, and count the plan's outcome.

        Args:
            raw: the LLMDeployment that the plan was decided from.
            plan: whose status it is.
            status: the plan's, with what became known since; None writes nothing.

        Returns:
            The resource as stored now; ``raw`` itself when nothing was to be written.

        Raises:
            Conflict: the LLMDeployment changed since ``raw`` was read.
        """
        await self._publish_unanswered(raw)
        status = self._to_write(raw, status)
        if status is None:
            return raw
        uid = raw["metadata"]["uid"]
        self._unanswered[uid] = _Unanswered(raw, plan, status)
        recorded = await self._write(raw, status)
        del self._unanswered[uid]
        self._transitions.count(plan)
        return recorded

    async def publish(self, raw: JSON, plan: Plan) -> None:
        """Publish a plan's events."""
        for event in plan.events:
            await self._transitions.publish(raw, event, plan.status)

    async def _publish_unanswered(self, raw: JSON) -> None:
        """Publish the events of a plan whose status write got no answer, if it was stored."""
        meta = raw["metadata"]
        late = self._unanswered.get(meta["uid"])
        if late is None or late.raw["metadata"]["resourceVersion"] == meta["resourceVersion"]:
            return  # should it arrive yet, the next write will be refused
        del self._unanswered[meta["uid"]]
        if not self.differs(raw, late.status):
            self._transitions.count(late.plan)
            await self.publish(late.raw, late.plan)

    def differs(self, raw: JSON, status: JSON | None) -> bool:
        """Whether the stored status is another one, as far as it can be stored here."""
        return self._to_write(raw, status) is not None

    def forget(self, uid: str) -> None:
        """Drop what is remembered about an LLMDeployment that is gone."""
        self._settled.pop(uid, None)
        self._unanswered.pop(uid, None)

    def _to_write(self, raw: JSON, status: JSON | None) -> JSON | None:
        """The status as it can be stored, None when it already is."""
        if status is None:
            return None
        if self.schema is not None:
            status = prune(status, self.schema)
        stored: JSON = raw.get("status") or {}
        if status == stored:
            return None
        settled = self._settled.get(raw["metadata"]["uid"])
        return None if settled == (json_hash(status), json_hash(stored)) else status

    async def _write(self, raw: JSON, status: JSON) -> JSON:
        meta = raw["metadata"]
        answer = await self._api.apply(
            LLM_DEPLOYMENT,
            {
                "apiVersion": LLM_DEPLOYMENT.api_version,
                "kind": LLM_DEPLOYMENT.kind,
                "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
                "status": status,
            },
            resource_version=meta["resourceVersion"],
            subresource="status",
        )
        if (answer.get("status") or {}) != status:
            answer = await self._replace(answer, status)
        self._settled[meta["uid"]] = (json_hash(status), json_hash(answer.get("status") or {}))
        return answer

    async def _replace(self, raw: JSON, status: JSON) -> JSON:
        """Remove status fields of other writers, which an apply leaves alone."""
        meta = raw["metadata"]
        test = {"op": "test", "path": RESOURCE_VERSION, "value": meta["resourceVersion"]}
        replace = {"op": "replace", "path": "/status", "value": status}
        return await self._api.json_patch(
            LLM_DEPLOYMENT, meta["namespace"], meta["name"], [test, replace], "status"
        )
