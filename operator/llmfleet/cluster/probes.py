"""The operator's own port: /metrics, /healthz, /readyz, /signals; served before leader election."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler

Check = Callable[[], str | None]
"""A sentence while something is wrong, else None."""
NOT_LEADING = "this replica does not lead: ask the one that does\n"


class ProbeServer:
    """Serves metrics and probes from the same event loop that reconciles.

    A loop that hangs therefore fails its liveness probe by not answering at all. ``/metrics`` takes
    ``?name[]=`` for single metrics, as Prometheus' libraries do: all of them are long with many
    LLMDeployments.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self.alive: list[Check] = []
        self.ready: list[Check] = []
        self.signals: Callable[[], Awaitable[dict[str, Any]]] | None = None
        """What ``/signals`` answers; None: this replica knows of no objects."""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Bind the port.

        Raises:
            OSError: the port is taken.
        """
        app = web.Application()
        app.router.add_get("/metrics", make_aiohttp_handler(disable_compression=True))
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/signals", self._signals)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        del request
        return _answer(self.alive)

    async def _readyz(self, request: web.Request) -> web.Response:
        del request
        return _answer(self.ready)

    async def _signals(self, request: web.Request) -> web.Response:
        del request
        if self.signals is None:
            return web.Response(status=503, text=NOT_LEADING)
        return web.json_response(await self.signals())


def _answer(checks: list[Check]) -> web.Response:
    problems = [problem for problem in (check() for check in checks) if problem]
    if problems:
        return web.Response(status=503, text="\n".join(problems) + "\n")
    return web.Response(text="ok\n")
