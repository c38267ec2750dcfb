"""Kubernetes Events on LLMDeployments, deduplicated and never more important than the work."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from llmfleet.cluster import metrics
from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.errors import ApiError
from llmfleet.cluster.kinds import EVENT
from llmfleet.planning.plan import PlannedEvent
from llmfleet.planning.snapshot import JSON

SAME_EVENT_SECONDS: Final = 600.0
"""The same sentence about the same object is posted once in this time."""
REMEMBERED_EVENTS: Final = 10_000
NOTE_LIMIT: Final = 1024
"""events.k8s.io/v1 refuses longer notes."""
CONTROLLER: Final = "llmfleet.dev/operator"

log: Any = structlog.get_logger(__name__)


class EventRecorder:
    """Posts events.k8s.io/v1 Events.

    Args:
        api: where to post.
        instance: this process, as ``reportingInstance``.
        monotonic: clock in seconds, for deduplication.
    """

    def __init__(
        self, api: ApiClient, instance: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._instance = instance[:128]
        self._monotonic = monotonic
        self._posted: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    async def post(self, raw: JSON, event: PlannedEvent) -> bool:
        """Post an Event about the LLMDeployment ``raw``; failures are logged, never raised.

        Returns whether it is news: not posted in the last ``SAME_EVENT_SECONDS``.
        """
        if not self.is_new(raw["metadata"]["uid"], event):
            metrics.EVENTS.labels("deduplicated").inc()
            return False
        try:
            await self._api.create(EVENT, build_event(raw, event, self._instance, _now()))
            metrics.EVENTS.labels("posted").inc()
        except ApiError as error:
            metrics.EVENTS.labels("failed").inc()
            log.warning("event not posted", reason=event.reason, error=str(error))
        return True

    def is_new(self, uid: str, event: PlannedEvent) -> bool:
        """Whether this event was not posted in the last ``SAME_EVENT_SECONDS``; remembers it."""
        key, now = (uid, event.reason, event.message), self._monotonic()
        last = self._posted.get(key)
        if last is not None and now - last < SAME_EVENT_SECONDS:
            return False
        self._posted[key] = now
        self._posted.move_to_end(key)
        while len(self._posted) > REMEMBERED_EVENTS:
            self._posted.popitem(last=False)
        return True


def build_event(raw: JSON, event: PlannedEvent, instance: str, now: datetime) -> JSON:
    """The Event object; ``now`` must be aware. Notes longer than 1,024 characters are cut."""
    meta = raw["metadata"]
    note = event.message
    if len(note.encode()) > NOTE_LIMIT:
        note = note.encode()[: NOTE_LIMIT - 3].decode(errors="ignore") + "…"
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"generateName": f"{meta['name']}-", "namespace": meta["namespace"]},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": event.type,
        "reason": event.reason,
        "action": "Reconcile",
        "note": note,
        "reportingController": CONTROLLER,
        "reportingInstance": instance,
        "regarding": {
            "apiVersion": raw["apiVersion"],
            "kind": raw["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
        },
    }


def _now() -> datetime:
    return datetime.now(UTC)
