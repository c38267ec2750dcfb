"""Leadership by a Lease: at most one replica writes, also when the API server stalls.

Times are read from a monotonic clock only; the timestamps in the Lease are for people. A leader
that has not renewed for ``GIVE_UP_SECONDS`` ends its process, well before anybody else may take the
lease over (``DURATION_SECONDS`` without seeing a renewal). Beside that, every write of the operator
asks ``LeaseKeeper.valid`` first, and is conditional on what it was decided from.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import structlog

from llmfleet.cluster import metrics
from llmfleet.cluster.background import keep_running
from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.errors import ApiError, Conflict, NotFound
from llmfleet.cluster.kinds import LEASE
from llmfleet.planning.snapshot import JSON

LEASE_NAME: Final = "llmfleet-operator"
DURATION_SECONDS: Final = 12.0
RENEW_SECONDS: Final = 2.0
REQUEST_SECONDS: Final = 3.0
GIVE_UP_SECONDS: Final = 8.0
"""8 + 3 s of a request on its way is still less than 12 s."""

log: Any = structlog.get_logger(__name__)


class LeaseAction(StrEnum):
    """What to do about the lease now."""

    CREATE = "Create"
    TAKE = "Take"
    RENEW = "Renew"
    WAIT = "Wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseView:
    """What a candidate knows about the lease.

    Attributes:
        holder: identity in the lease; "" when it was released.
        duration_seconds: as the holder promised.
        version: resourceVersion; changes with every renewal.
        unchanged_since: monotonic time at which this candidate first saw this version.
    """

    holder: str
    duration_seconds: float
    version: str
    unchanged_since: float


def read_lease(body: JSON, before: LeaseView | None, now: float) -> LeaseView:
    """Update the view with a lease just read at monotonic time ``now`` (seconds)."""
    spec = body.get("spec") or {}
    version = body["metadata"]["resourceVersion"]
    same = before is not None and before.version == version
    return LeaseView(
        holder=str(spec.get("holderIdentity") or ""),
        duration_seconds=float(spec.get("leaseDurationSeconds") or DURATION_SECONDS),
        version=version,
        unchanged_since=before.unchanged_since if before is not None and same else now,
    )


def decide_lease(view: LeaseView | None, identity: str, now: float) -> LeaseAction:
    """What a candidate does; ``now`` in seconds of the same monotonic clock as the view.

    Example:
        A lease of another holder is taken only when its version stood still for its duration
        while this candidate watched it, whatever its timestamps say.
    """
    if view is None:
        return LeaseAction.CREATE
    if view.holder == identity:
        return LeaseAction.RENEW
    if not view.holder or now - view.unchanged_since > view.duration_seconds:
        return LeaseAction.TAKE
    return LeaseAction.WAIT


def is_valid(renewed_at: float | None, now: float) -> bool:
    """Whether a leader may still write: ``renewed_at`` is when its last renewal was *sent*."""
    return renewed_at is not None and now - renewed_at < GIVE_UP_SECONDS


class LeaseKeeper:
    """Acquires, renews and releases the lease.

    Args:
        api: a connection pool of its own, so that renewals never queue behind other calls.
        namespace: of the lease.
        identity: of this process; the pod's uid.
        on_lost: ends the process; must not return to the caller's work.
    """

    def __init__(
        self,
        api: ApiClient,
        namespace: str,
        identity: str,
        on_lost: Callable[[], None] = lambda: os._exit(1),
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._identity = identity
        self._on_lost = on_lost
        self._view: LeaseView | None = None
        self._body: JSON | None = None
        self._renewed_at: float | None = None
        self._released = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def valid(self) -> bool:
        """Whether this process surely holds the lease."""
        return is_valid(self._renewed_at, time.monotonic())

    async def acquire(self) -> None:
        """Return when the lease is held; it is then renewed until ``release``."""
        while not await self._attempt():  # noqa: ASYNC110 - polling is the protocol
            await asyncio.sleep(RENEW_SECONDS)
        metrics.LEADER.set(1)
        log.info("leading", lease=f"{self._namespace}/{LEASE_NAME}", identity=self._identity)
        threading.Thread(target=self._watch_over_renewals, daemon=True).start()
        self._task = keep_running("lease", self._renew)

    async def release(self) -> None:
        """Stop renewing and let the next one take over at once."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._released.set()
        self._renewed_at = None
        metrics.LEADER.set(0)
        if self._body is None:
            return
        body = {**self._body, "spec": {**self._body["spec"], "holderIdentity": ""}}
        try:
            await self._api.replace(LEASE, body, REQUEST_SECONDS)
            log.info("lease released")
        except ApiError as error:
            log.warning("lease not released, it will expire", error=str(error))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if (
                not await self._attempt()
                and self._view is not None
                and self._view.holder
                not in (
                    "",
                    self._identity,
                )
            ):
                log.error("lease taken by another replica", holder=self._view.holder)
                self._on_lost()

    async def _attempt(self) -> bool:
        """One look at the lease and one write if it may be ours; whether it is ours now."""
        sent_at = time.monotonic()
        try:
            if self._body is None:
                await self._read()
            action = decide_lease(self._view, self._identity, time.monotonic())
            if action is LeaseAction.WAIT:
                self._body = None  # read it again next time
                return False
            sent_at = time.monotonic()
            self._take(await self._send(action))
        except Conflict:
            self._body = None
            return False
        except ApiError as error:
            self._body = None
            log.warning("lease not reached", error=str(error))
            return False
        self._renewed_at = sent_at
        return True

    async def _read(self) -> None:
        path = LEASE.path(self._namespace, LEASE_NAME)
        try:
            self._take(await self._api.get(path, timeout_seconds=REQUEST_SECONDS))
        except NotFound:
            self._view = None

    def _take(self, body: JSON) -> None:
        self._body = body
        self._view = read_lease(body, self._view, time.monotonic())

    async def _send(self, action: LeaseAction) -> JSON:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        held: JSON = {} if self._body is None else self._body.get("spec") or {}
        spec: JSON = {
            **held,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION_SECONDS),
            "renewTime": now,
        }
        if action is not LeaseAction.RENEW:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(held.get("leaseTransitions") or 0) + 1
        if action is LeaseAction.CREATE or self._body is None:
            body: JSON = {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.kind,
                "metadata": {"name": LEASE_NAME, "namespace": self._namespace},
                "spec": spec,
            }
            return await self._api.create(LEASE, body, REQUEST_SECONDS)
        return await self._api.replace(LEASE, {**self._body, "spec": spec}, REQUEST_SECONDS)

    def _watch_over_renewals(self) -> None:
        """A thread, because an event loop that hangs cannot end its own process."""
        while not self._released.wait(0.2):
            if not self.valid() and not self._released.is_set():
                log.error("lease not renewed in time, ending", seconds=GIVE_UP_SECONDS)
                self._on_lost()
                return
