"""Kubernetes Events on LLMDeployments, deduplicated and never more important than the work.

An Event whose POST got no answer is posted again in the background, under the same name, so that
one that arrived after all is not there twice. What waits when the process ends is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from llmfleet.api import shorten
from llmfleet.cluster import metrics
from llmfleet.cluster.background import keep_running
from llmfleet.cluster.backoff import Backoff
from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.errors import AlreadyExists, ApiError, TooManyRequests, Unavailable
from llmfleet.cluster.kinds import EVENT
from llmfleet.planning.plan import PlannedEvent
from llmfleet.planning.snapshot import JSON

SAME_EVENT_SECONDS: Final = 600.0
"""The same sentence about the same occurrence is posted once in this time: a state that flaps."""
AVAILABILITY: Final = frozenset({"Available", "NoAddress", "NoReadyReplicas", "NoReadyRouters"})
"""Reasons of which each ends the one before: an outage is told again after its end was."""
BURST: Final = 60
"""Events of one reason about one LLMDeployment that are posted at once; a long rollout has them."""
REFILL_SECONDS: Final = 60.0
"""And one more in this time: what flaps for hours fills neither etcd nor a channel of people."""
REMEMBERED_EVENTS: Final = 10_000
WAITING_EVENTS: Final = 1000
"""Events that wait to be posted again; the oldest is lost for another one."""
TRIES: Final = 8
"""With pauses of 1 s to 60 s between them: an API server may be away for two minutes."""
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
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
        first_pause_seconds: before an Event is posted again; doubled for each try after it.
    """

    def __init__(
        self,
        api: ApiClient,
        instance: str,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._api = api
        self._instance = instance[:128]
        self._monotonic = monotonic
        self._first_pause = first_pause_seconds
        self._posted: OrderedDict[tuple[str, ...], tuple[float, tuple[str, ...]]] = OrderedDict()
        self._allowances: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()
        self._waiting: asyncio.Queue[JSON] = asyncio.Queue(WAITING_EVENTS)
        self._task: asyncio.Task[None] | None = None

    async def post(self, raw: JSON, event: PlannedEvent) -> bool:
        """Post an Event about the LLMDeployment ``raw``; failures are logged, never raised.

        Returns whether it is new: not posted in the last ``SAME_EVENT_SECONDS``, and one of few.
        """
        uid = raw["metadata"]["uid"]
        if not self.is_new(uid, event):
            metrics.EVENTS.labels("deduplicated").inc()
            return False
        if not self._is_one_of_few(uid, event.reason):
            metrics.EVENTS.labels("suppressed").inc()
            return False
        body = build_event(raw, event, self._instance, _now())
        try:
            await self._create(body)
        except (Unavailable, TooManyRequests) as error:
            log.warning("event posted again later", reason=event.reason, error=str(error))
            self._post_later(body)
        except ApiError as error:
            _count_lost(body, error)
        return True

    def is_new(self, uid: str, event: PlannedEvent) -> bool:
        """Whether this event was not posted in the last ``SAME_EVENT_SECONDS``; remembers it.

        Of those about availability only the last one is remembered.
        """
        said = (event.reason, event.message, event.occurrence)
        key = (uid, "availability") if event.reason in AVAILABILITY else (uid, *said)
        now = self._monotonic()
        last, said_last = self._posted.get(key, (-math.inf, said))
        if said_last == said and now - last < SAME_EVENT_SECONDS:
            return False
        self._posted[key] = (now, said)
        self._posted.move_to_end(key)
        while len(self._posted) > REMEMBERED_EVENTS:
            self._posted.popitem(last=False)
        return True

    def _is_one_of_few(self, uid: str, reason: str) -> bool:
        """Whether a reason has not come too often, as a bucket of ``BURST`` tokens tells."""
        key, now = (uid, reason), self._monotonic()
        tokens, since = self._allowances.pop(key, (float(BURST), now))
        tokens = min(BURST, tokens + (now - since) / REFILL_SECONDS)
        allowed = tokens >= 1
        self._allowances[key] = (tokens - allowed, now)
        while len(self._allowances) > REMEMBERED_EVENTS:
            self._allowances.popitem(last=False)
        return allowed

    async def close(self) -> None:
        """Post no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _create(self, body: JSON) -> None:
        # Its name is its own: one that is there already was posted by a try without an answer.
        with contextlib.suppress(AlreadyExists):
            await self._api.create(EVENT, body)
        metrics.EVENTS.labels("posted").inc()

    def _post_later(self, body: JSON) -> None:
        if self._waiting.full():
            _count_lost(self._waiting.get_nowait(), "too many wait")
        self._waiting.put_nowait(body)
        if self._task is None:
            self._task = keep_running("events", self._post_waiting)

    async def _post_waiting(self) -> None:
        while True:
            await self._post_again(await self._waiting.get())

    async def _post_again(self, body: JSON) -> None:
        pauses = Backoff(first_seconds=self._first_pause, longest_seconds=LONGEST_PAUSE_SECONDS)
        problem: ApiError | None = None
        for _ in range(TRIES - 1):
            asked = getattr(problem, "retry_after_seconds", None) or 0.0
            await asyncio.sleep(max(asked, pauses.next_seconds(random.random())))  # noqa: S311 - jitter
            try:
                await self._create(body)
            except (Unavailable, TooManyRequests) as error:
                problem = error
            except ApiError as error:
                problem = error
                break
            else:
                return
        _count_lost(body, problem)


def _count_lost(body: JSON, problem: object) -> None:
    metrics.EVENTS.labels("failed").inc()
    log.warning("event lost", reason=body["reason"], note=body["note"], error=str(problem))


def build_event(raw: JSON, event: PlannedEvent, instance: str, now: datetime) -> JSON:
    """The Event object; ``now`` must be aware. Notes longer than 1,024 bytes are shortened.

    Its name follows from what it says, when, and who says it.
    """
    meta = raw["metadata"]
    time_of_event = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    parts = (meta["uid"], event.reason, event.message, time_of_event, instance)
    own = hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()[:16]
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": f"{meta['name']}.{own}", "namespace": meta["namespace"]},
        "eventTime": time_of_event,
        "type": event.type,
        "reason": event.reason,
        "action": "Reconcile",
        "note": shorten(event.message, NOTE_LIMIT),
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
