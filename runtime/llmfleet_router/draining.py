"""The end of Envoy: no request that comes meanwhile is lost, and no stream is cut in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from llmfleet_router.admin import Admin, AdminError
from llmfleet_router.bootstrap import ROUTE_FILES
from llmfleet_router.settings import Settings

T = TypeVar("T")
log = structlog.get_logger("launcher")

QUIET_SECONDS = 6.0
"""How long no request may come before the end while idle client connections are still open.
HTTP clients drop an idle connection after 5 s (httpx's default) and would meet a reset sooner."""
FORGOTTEN_SECONDS = 2.0
"""So long after the last new request nobody is led here any more, whatever connections are left."""
POLL_SECONDS = 0.1
STOP_MARGIN_SECONDS = 2.0


class Drain:
    """Is forgotten by the Service, closes connections politely, waits for streams.

    A pod that is being deleted is no ready endpoint whatever ``/ready`` says, but while there is
    no other (all routers deleted at once) Services lead to it as long as it says so. So it does
    until no new request comes.

    All of it within drainTimeout, less a margin for Envoy's own end, so that the kubelet's SIGKILL
    (its grace period is longer than that) never comes first.
    """

    def __init__(
        self, settings: Settings, admin: Admin, on_forgotten: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        self._admin = admin
        self._on_forgotten = on_forgotten
        self._forgotten = False

    async def run(self) -> None:
        """Returns when Envoy may end."""
        started = time.monotonic()
        budget = max(0.0, self._settings.drain_timeout_seconds - STOP_MARGIN_SECONDS)
        log.info("draining", budget_seconds=budget)
        await asyncio.sleep(min(self._settings.endpoint_removal_seconds, budget))
        try:
            await self._patiently(self._admin.drain_listeners, started + budget)
            left = await self._until_quiet(started + budget)
        except AdminError as error:
            log.warning("drain_cut_short", error=str(error))
            return
        finally:
            self._forget()
        seconds = round(time.monotonic() - started, 1)
        log.info("drained", seconds=seconds, streams_cut=left)

    async def _patiently(self, ask: Callable[[], Awaitable[T]], deadline: float) -> T:
        """Envoy's answer, however busy it is: one late answer must not cut every stream.

        Raises:
            AdminError: Envoy is gone, or the time is over.
        """
        while True:
            try:
                return await ask()
            except AdminError:
                if time.monotonic() > deadline or await self._admin.gone():
                    raise
            await asyncio.sleep(POLL_SECONDS)

    def _forget(self) -> None:
        if not self._forgotten:
            self._forgotten = True
            self._on_forgotten()

    async def _until_quiet(self, deadline: float) -> int:
        """Requests still active when the wait ended; 0 unless the time was over."""
        groups = [
            [f"http.{listener}.downstream_{what}" for listener in ROUTE_FILES]
            for what in ("rq_active", "cx_active", "rq_total")
        ]
        last_total, last_new, last_change = -1, time.monotonic(), time.monotonic()
        names = [name for group in groups for name in group]
        while True:
            stats = await self._patiently(lambda: self._admin.numbers(names), deadline)
            active, open_connections, total = (sum(stats[n] for n in group) for group in groups)
            now = time.monotonic()
            if total != last_total or active:
                last_change = now
            if total != last_total:
                last_total, last_new = total, now
            if now - last_new > FORGOTTEN_SECONDS:
                self._forget()
            quiet = not open_connections or now - last_change > QUIET_SECONDS
            if self._forgotten and not active and quiet:
                return 0
            if now > deadline:
                return active
            await asyncio.sleep(POLL_SECONDS)
