"""The notification hook: every Event also goes to one webhook, as a CloudEvent, if one is set.

Sent in the background and tried again; a webhook that is slow or gone delays no reconcile. What
waits when the process ends is lost: status and Events are the record, this is a bell.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import aiohttp
import structlog

from llmfleet.cluster import metrics
from llmfleet.cluster.background import keep_running
from llmfleet.planning.plan import PlannedEvent
from llmfleet.planning.snapshot import JSON

WAITING: Final = 1000
"""Notifications that wait; the oldest is dropped for another one."""
TRIES: Final = 6
FIRST_PAUSE_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 10.0
CONTENT_TYPE: Final = "application/cloudevents+json"
_TRY_AGAIN: Final = frozenset({408, 425, 429})

log: Any = structlog.get_logger(__name__)


class Notifier:
    """Posts CloudEvents 1.0 in structured mode.

    Args:
        url: of the webhook; None sends nothing.
        first_pause_seconds: before the second try; doubled for each one after it.
    """

    def __init__(
        self, url: str | None, *, first_pause_seconds: float = FIRST_PAUSE_SECONDS
    ) -> None:
        self._url = url
        self._first_pause = first_pause_seconds
        self._waiting: asyncio.Queue[JSON] = asyncio.Queue(WAITING)
        self._task: asyncio.Task[None] | None = None

    def send(self, raw: JSON, event: PlannedEvent, status: JSON) -> None:
        """Queue the notification of an event; returns at once."""
        if self._url is None:
            return
        if self._waiting.full():
            self._waiting.get_nowait()
            metrics.NOTIFICATIONS.labels("dropped").inc()
        self._waiting.put_nowait(build_cloud_event(raw, event, status, datetime.now(UTC)))
        if self._task is None:
            self._task = keep_running("notifications", partial(self._run, self._url))

    async def close(self) -> None:
        """Send no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, url: str) -> None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                body = await self._waiting.get()
                sent = await self._deliver(session, url, body)
                metrics.NOTIFICATIONS.labels("sent" if sent else "failed").inc()

    async def _deliver(self, session: aiohttp.ClientSession, url: str, body: JSON) -> bool:
        problem = ""
        for number in range(TRIES):
            if number:
                pause = self._first_pause * 2 ** (number - 1)
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            try:
                async with session.post(
                    url, json=body, headers={"Content-Type": CONTENT_TYPE}, allow_redirects=False
                ) as answer:
                    if answer.status < 300:
                        return True
                    problem = f"it answers {answer.status}"
                    if answer.status < 500 and answer.status not in _TRY_AGAIN:
                        break
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                # The URL may hold a secret, and some of these errors repeat it.
                problem = type(error).__name__
        log.warning("notification not delivered", type=body["type"], problem=problem)
        return False


def build_cloud_event(raw: JSON, event: PlannedEvent, status: JSON, now: datetime) -> JSON:
    """The CloudEvent (CNCF CloudEvents 1.0, JSON format) of an event about ``raw``.

    The id is the same for the same sentence at the same state, so that a receiver can tell
    deliveries of one event.
    """
    meta = raw["metadata"]
    rollout = status.get("rollout") or {}
    parts = (meta["uid"], meta["resourceVersion"], event.reason, event.message)
    data = {
        "namespace": meta["namespace"],
        "name": meta["name"],
        "severity": event.type,
        "reason": event.reason,
        "message": event.message,
        "phase": status.get("phase"),
        "servedRevision": status.get("servedRevision"),
        "specRevision": status.get("specRevision"),
        "rollout": {key: rollout[key] for key in ("id", "revision", "step") if key in rollout},
        "canaryWeight": status.get("canaryWeight"),
    }
    return {
        "specversion": "1.0",
        "id": hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32],
        "source": f"/apis/{raw['apiVersion']}/namespaces/{meta['namespace']}/llmdeployments"
        f"/{meta['name']}",
        "type": f"dev.llmfleet.{event.reason}",
        "time": now.isoformat(),
        "datacontenttype": "application/json",
        "data": {key: value for key, value in data.items() if value not in (None, {})},
    }
