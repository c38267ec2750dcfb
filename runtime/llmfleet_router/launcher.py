"""The first process of Envoy's container: starts Envoy, and ends it gracefully.

It needs nobody for that: the agent in the other container writes what Envoy serves, and may be gone
for a while. Only Envoy's first start waits for the agent's first files.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import structlog

from llmfleet_router.bootstrap import CLUSTER_FILE, ROUTE_FILES, build_bootstrap
from llmfleet_router.envoy import EnvoyProcess
from llmfleet_router.files import read_token, write_by_rename
from llmfleet_router.launch import Launch, write_launch
from llmfleet_router.settings import Settings

log = structlog.get_logger("launcher")

FILES_POLL_SECONDS = 0.05


class EnvoyEndedError(RuntimeError):
    """Envoy ended without being asked to."""


class Launcher:
    """One start of Envoy."""

    def __init__(self, settings: Settings) -> None:
        settings.xds_dir.mkdir(parents=True, exist_ok=True)
        self.envoy = EnvoyProcess(settings, settings.bootstrap_file)
        self._settings = settings
        self._launch = Launch(start=str(time.time_ns()))

    async def run(self, stop: asyncio.Event) -> None:
        """Runs Envoy until ``stop`` is set, then drains it and returns.

        Raises:
            EnvoyEndedError: Envoy ended on its own.
        """
        self._tell(self._launch)
        bootstrap = build_bootstrap(self._settings, read_token(self._settings.token_file))
        write_by_rename(self._settings.bootstrap_file, bootstrap)
        stopping = asyncio.create_task(stop.wait())
        ended: asyncio.Task[int] | None = None
        try:
            if not await self._files_are_there(stop):
                return
            await self.envoy.start()
            ended = asyncio.create_task(self.envoy.wait())
            await _first(stopping, ended)
            self._tell(replace(self._launch, stopping=True))
            await _first(asyncio.create_task(self._drain()), ended)
        finally:
            stopping.cancel()
            await self.envoy.stop()
            if ended is not None:
                await ended

    def _tell(self, launch: Launch) -> None:
        self._launch = launch
        try:
            write_launch(self._settings, launch)
        except OSError as error:  # a full disk must not cut a stream
            log.warning("agent_not_told", error=str(error))

    async def _files_are_there(self, stop: asyncio.Event) -> bool:
        """Waits for the agent's first files; False when told to stop first.

        Without them Envoy would listen after a timeout of its own, and answer 404 to everything.
        """
        names = (CLUSTER_FILE, *(file for file, _ in ROUTE_FILES.values()))
        paths = [self._settings.xds_dir / name for name in names]
        if not all(path.exists() for path in paths):
            log.info("waiting_for_the_agent", files=names)
        while not all(path.exists() for path in paths):
            if stop.is_set():
                return False
            await asyncio.sleep(FILES_POLL_SECONDS)
        return True

    async def _drain(self) -> None:
        # Imported when it is needed, which is once: the HTTP client takes more memory than all else
        # in this process, and would have it for the pod's whole life.
        from llmfleet_router.admin import Admin  # noqa: PLC0415
        from llmfleet_router.draining import Drain  # noqa: PLC0415

        admin = Admin(self._settings.admin_port)

        def forgotten() -> None:
            self._tell(replace(self._launch, forgotten=True))

        try:
            await Drain(self._settings, admin, forgotten).run()
        finally:
            await admin.close()


async def _first(asked: asyncio.Task[object], ended: asyncio.Task[int]) -> None:
    """Waits for ``asked``.

    Raises:
        EnvoyEndedError: Envoy ended before that.
    """
    await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
    if asked.done():
        asked.result()
        return
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    raise EnvoyEndedError(f"Envoy ended unexpectedly with status {ended.result()}")
