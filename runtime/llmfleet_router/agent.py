"""The agent: tells Envoy, which runs in the container beside it, what to serve, and reports.

It ends and starts again without Envoy, and Envoy without it. What Envoy has is in its files
(served.py), and which start of Envoy it is in the launcher's (launch.py).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from llmfleet_router.admin import Admin
from llmfleet_router.applier import Applier
from llmfleet_router.counters import Counters
from llmfleet_router.launch import Launch, read_launch
from llmfleet_router.port import AgentPort
from llmfleet_router.served import read_served
from llmfleet_router.settings import Settings
from llmfleet_router.state import State
from llmfleet_router.store import Source, Store
from llmfleet_router.xds import XdsFiles

log = structlog.get_logger("agent")

POLL_SECONDS = 0.1
TOGETHER_SECONDS = 5.0
"""The kubelet tells both containers of a pod at once to stop. Who hears nothing of the other for so
long was told alone."""
LAST_READING_SECONDS = 8.0
"""For the operator to read what the last requests came to; it asks every 5 s."""
TROUBLE_SECONDS = (1.0, 30.0)
"""Between an error nobody expected and the next try, the first and the longest."""


class Agent:
    """The agent of one router pod."""

    def __init__(self, settings: Settings, source: Source) -> None:
        self.settings = settings
        settings.xds_dir.mkdir(parents=True, exist_ok=True)
        XdsFiles(settings).write_initial()
        served = read_served(settings)
        self.store = Store(served.desired if served else None)
        self.admin = Admin(settings.admin_port)
        counters = Counters(self.admin, settings.counters_file)
        self.applier = Applier(
            settings, self.store, self.admin, counters, on_confirmed=self._confirmed
        )
        self.state = State(settings, self.applier, counters)
        self._source = source
        self._port = AgentPort(settings, self.state, self.admin)
        self._launch: Launch | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Works until ``stop`` is set and Envoy, if its container stops as well, has ended."""
        await self._port.start()
        background = [
            asyncio.create_task(self._lasting(self._follow_launcher, "launcher")),
            asyncio.create_task(self._lasting(self.applier.run, "applier")),
            asyncio.create_task(self._lasting(lambda: self._source.run(self.store), "source")),
        ]
        try:
            await stop.wait()
            await self._stay_to_the_end()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._port.stop()
            await self.admin.close()

    def _confirmed(self) -> None:
        self.state.confirmed()

    @staticmethod
    async def _lasting(run: Callable[[], Awaitable[None]], what: str) -> NoReturn:
        """Runs it again and again: an error nobody expected is told, and costs nobody a request.

        If the agent ended with it, its pod would not be ready; nor would those of all other
        routers, which have heard the same.
        """
        first, longest = TROUBLE_SECONDS
        delay = first
        while True:
            began = time.monotonic()
            try:
                await run()
                log.error("ended", task=what)
            except Exception:
                log.exception("failed", task=what, consequence="what is served stays")
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay = first if time.monotonic() > began + 2 * longest else min(2 * delay, longest)

    async def _follow_launcher(self) -> None:
        while True:
            self._hear(read_launch(self.settings))
            await asyncio.sleep(POLL_SECONDS)

    def _hear(self, launch: Launch | None) -> None:
        if launch is None or launch == self._launch:
            return
        if self._launch is not None and launch.start != self._launch.start:
            log.warning("envoy_starts_again", container="envoy")
            self.applier.adopt_anew()
        self._launch = launch
        self.state.draining = launch.forgotten

    async def _stay_to_the_end(self) -> None:
        """Goes on until Envoy has drained and what its last requests came to was read.

        An agent whose container alone is restarted has nothing to wait for: Envoy serves on.
        """
        if not await self._envoy_stops_too():
            log.info("stopped_alone", consequence="Envoy serves on")
            return
        log.info("staying", until="Envoy has drained")
        while not await self.admin.gone():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(POLL_SECONDS)
        await self._port.ledger_read(LAST_READING_SECONDS)

    async def _envoy_stops_too(self) -> bool:
        for _ in range(round(TOGETHER_SECONDS / POLL_SECONDS)):
            self._hear(read_launch(self.settings))
            if self._launch is not None and self._launch.stopping:
                return True
            if await self.admin.gone():
                return False  # it never began, or has ended already
            await asyncio.sleep(POLL_SECONDS)
        return False
