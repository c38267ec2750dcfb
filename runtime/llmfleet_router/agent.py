"""The agent: starts Envoy, feeds it, reports, and ends it gracefully."""

from __future__ import annotations

import asyncio
import time

import structlog

from llmfleet_router.applier import Applier
from llmfleet_router.bootstrap import ROUTE_FILES, build_bootstrap
from llmfleet_router.counters import Counters
from llmfleet_router.envoy import Admin, AdminError, EnvoyProcess
from llmfleet_router.files import read_token, recall, write_by_rename
from llmfleet_router.port import AgentPort
from llmfleet_router.settings import Settings
from llmfleet_router.state import State
from llmfleet_router.store import Source, Store

log = structlog.get_logger("agent")

START_TIMEOUT_SECONDS = 30.0
QUIET_SECONDS = 6.0
"""How long no request may come before the end while idle client connections are still open.
HTTP clients drop an idle connection after 5 s (httpx's default) and would meet a reset sooner."""
FORGOTTEN_SECONDS = 2.0
"""So long after the last new request nobody is led here any more, whatever connections are left."""
POLL_SECONDS = 0.1
STOP_MARGIN_SECONDS = 2.0


class EnvoyEndedError(RuntimeError):
    """Envoy ended without being asked to."""


class Agent:
    """One router pod."""

    def __init__(self, settings: Settings, source: Source) -> None:
        self.settings = settings
        settings.xds_dir.mkdir(parents=True, exist_ok=True)
        self.store = Store(recall(settings.xds_dir))
        self.admin = Admin(settings.admin_port)
        self.envoy = EnvoyProcess(settings, settings.xds_dir / "bootstrap.json")
        counters = Counters(self.admin)
        self.applier = Applier(
            settings, self.store, self.admin, counters, on_confirmed=self._confirmed
        )
        self.state = State(settings, self.applier, counters, self.store)
        self._source = source
        self._port = AgentPort(settings, self.state, self.admin, lambda: self.envoy.alive)

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set, then drains and returns.

        Raises:
            EnvoyEndedError: Envoy ended on its own, or never became live.
        """
        token = read_token(self.settings.token_file)
        bootstrap = build_bootstrap(self.settings, token)
        write_by_rename(self.settings.xds_dir / "bootstrap.json", bootstrap)
        self.applier.write_initial_files()
        await self._port.start()
        await self.envoy.start()
        background: list[asyncio.Task[None]] = []
        try:
            ended = asyncio.create_task(self._watch_envoy(), name="envoy")
            background.append(ended)
            await self._race(self._until_live(), ended)
            background += [
                asyncio.create_task(self.applier.run(), name="applier"),
                asyncio.create_task(self._source.run(self.store), name="source"),
            ]
            await self._race(stop.wait(), *background)
            await self._race(self._drain(), *background)
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self.envoy.stop()
            await self._port.stop()
            await self.admin.close()

    def _confirmed(self) -> None:
        self.state.confirmed()

    async def _watch_envoy(self) -> None:
        raise EnvoyEndedError(f"Envoy ended unexpectedly with status {await self.envoy.wait()}")

    @staticmethod
    async def _race(main: object, *background: asyncio.Task[None]) -> None:
        """Waits for ``main``; a background task that ends first is an error and is raised."""
        task = asyncio.ensure_future(main)  # type: ignore[call-overload]  # any awaitable
        done, _ = await asyncio.wait({task, *background}, return_when=asyncio.FIRST_COMPLETED)
        failed = [t for t in background if t in done]
        if failed and task not in done:
            task.cancel()
        for finished in failed:
            finished.result()
            raise RuntimeError(f"the task {finished.get_name()} ended")
        task.result()

    async def _until_live(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not await self.admin.live():
            if time.monotonic() > deadline:
                raise EnvoyEndedError("Envoy did not become live; its own log says why.")
            await asyncio.sleep(0.05)

    async def _drain(self) -> None:
        """Is forgotten by the Service, closes connections politely, waits for streams.

        A pod that is being deleted is no ready endpoint whatever ``/ready`` says, but while there
        is no other (all routers deleted at once) Services lead to it as long as it says so. So it
        does until no new request comes.

        All of it within drainTimeout, less a margin for Envoy's own end, so that the kubelet's
        SIGKILL (its grace period is the same value) never comes first.
        """
        started = time.monotonic()
        budget = max(0.0, self.settings.drain_timeout_seconds - STOP_MARGIN_SECONDS)
        log.info("draining", budget_seconds=budget)
        await asyncio.sleep(min(self.settings.endpoint_removal_seconds, budget))
        try:
            await self.admin.drain_listeners()
            left = await self._until_quiet(started + budget)
            self.state.draining = True
        except AdminError as error:
            self.state.draining = True
            log.warning("drain_cut_short", error=str(error))
            return
        seconds = round(time.monotonic() - started, 1)
        log.info("drained", seconds=seconds, streams_cut=left)

    async def _until_quiet(self, deadline: float) -> int:
        """Requests still active when the wait ended; 0 unless the time was over."""
        names = [
            [f"http.{listener}.downstream_{what}" for listener in ROUTE_FILES]
            for what in ("rq_active", "cx_active", "rq_total")
        ]
        last_total, last_new, last_change = -1, time.monotonic(), time.monotonic()
        while True:
            stats = await self.admin.numbers(name for group in names for name in group)
            active, open_connections, total = (sum(stats[n] for n in group) for group in names)
            now = time.monotonic()
            if total != last_total or active:
                last_change = now
            if total != last_total:
                last_total, last_new = total, now
            self.state.draining = self.state.draining or now - last_new > FORGOTTEN_SECONDS
            quiet = not open_connections or now - last_change > QUIET_SECONDS
            if self.state.draining and not active and quiet:
                return 0
            if now > deadline:
                return active
            await asyncio.sleep(POLL_SECONDS)
