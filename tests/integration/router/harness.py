"""Stub engines behind a router with the real Envoy, and a prober in front."""

from __future__ import annotations

import asyncio
import contextlib
import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from hack.processes.agent import RunningRouter

from llmfleet_router.model import Endpoint


async def poll(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds, for what has no event to wait for."""
    while not condition():  # noqa: ASYNC110 - as said
        await asyncio.sleep(0.01)


@dataclass
class StubEngine:
    """Speaks as much of the engine's API as the router sees; behaviour is chosen per request.

    The request's JSON field ``stub`` says what to do: ``stream`` chunks with ``delay`` seconds
    between them, ``sleep`` before answering, ``reset`` the connection, or answer ``status``.
    """

    name: str
    port: int = 0
    seen: list[dict[str, Any]] = field(default_factory=list)
    refuse_retriable: int = 0
    """Answer the next so many requests 503 with x-envoy-ratelimited."""
    refuse_plain: int = 0
    fail: int = 0
    """Answer the next so many requests 500."""
    held: asyncio.Event | None = None
    """Answer nothing until it is set."""
    active: int = 0
    _runner: web.AppRunner | None = None

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(address="127.0.0.1", port=self.port)

    async def start(self, port: int = 0) -> StubEngine:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=5, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.active += 1
        try:
            return await self._answer(request)
        finally:
            self.active -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(
            {"method": request.method, "path": request.raw_path, "headers": request.headers,
             "bytes": len(body)}
        )  # fmt: skip
        if self.held is not None:
            await self.held.wait()
        if self.refuse_retriable > 0:
            self.refuse_retriable -= 1
            return web.json_response({}, status=503, headers={"x-envoy-ratelimited": "true"})
        if self.refuse_plain > 0:
            self.refuse_plain -= 1
            return web.json_response({}, status=503)
        if self.fail > 0:
            self.fail -= 1
            return web.json_response({}, status=500)
        wish: dict[str, Any] = {}
        if request.content_type == "application/json" and body[:1] == b"{":
            with contextlib.suppress(ValueError):
                wish = json.loads(body).get("stub", {})
        if wish.get("reset"):
            assert request.transport is not None
            request.transport.abort()
        await asyncio.sleep(wish.get("sleep", 0))
        if "stream" not in wish:
            return web.json_response(
                {"engine": self.name, "path": request.path, "bytes": len(body)},
                status=wish.get("status", 200),
            )
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for i in range(wish["stream"]):
            await response.write(f"data: {i}\n\n".encode())
            await asyncio.sleep(wish.get("delay", 0))
            if wish.get("cut_after") == i:
                assert request.transport is not None
                request.transport.abort()
        await response.write(b"data: [DONE]\n\n")
        return response


async def shown(
    router: RunningRouter, name: str, value: int, how: Callable[[int, int], bool] = operator.ge
) -> None:
    """Waits until Envoy's own counter has come so far; nobody is told."""
    async with asyncio.timeout(10):
        while not how((await router.agent.admin.numbers([name]))[name], value):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@dataclass
class Tally:
    """What a prober saw."""

    total: int = 0
    failures: list[str] = field(default_factory=list)
    revisions: dict[str, int] = field(default_factory=dict)


class Prober:
    """Constant load over keep-alive connections: every second request is a stream.

    Each request is a conversation of its own, so affinity spreads them; every fifth has a body of
    ``large_bytes`` and more.
    """

    def __init__(
        self, url: str, workers: int = 8, pause: float = 0.005, large_bytes: int = 0
    ) -> None:
        self.tally = Tally()
        self.workers = workers
        self._url = url
        self._pause = pause
        self._large_bytes = large_bytes
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()
        self._answered = asyncio.Condition()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Prober:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=30)
        )
        self._tasks = [asyncio.create_task(self._work(i)) for i in range(self.workers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)
        if self._session is not None:
            await self._session.close()

    async def seen(self, more: int) -> None:
        """Waits until so many more requests have been answered."""
        goal = self.tally.total + more
        async with asyncio.timeout(20), self._answered:
            await self._answered.wait_for(lambda: self.tally.total >= goal)

    async def _work(self, number: int) -> None:
        i = number
        while not self._stop.is_set():
            i += 1
            stub = {"stream": 5, "delay": 0.02} if i % 2 else {"sleep": 0.002}
            content = f"conversation {number}/{i}" + "x" * (0 if i % 5 else self._large_bytes)
            await self._one({"messages": [{"content": content}], "stub": stub})
            await asyncio.sleep(self._pause)

    async def _one(self, body: dict[str, Any]) -> None:
        assert self._session is not None
        try:
            async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as answer:
                text = await answer.text()
                ok = answer.status == 200
                if "stream" in body["stub"]:
                    ok = ok and text.endswith("data: [DONE]\n\n")
                if not ok:
                    self.tally.failures.append(f"{answer.status} {text[:200]}")
                revision = answer.headers.get("x-llmfleet-revision", "")
                self.tally.revisions[revision] = self.tally.revisions.get(revision, 0) + 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.tally.failures.append(repr(error))
        async with self._answered:
            self.tally.total += 1
            self._answered.notify_all()


async def ask_many(url: str, bodies: Sequence[dict[str, Any]]) -> list[int]:
    """The status of each, all asked at once."""

    async def status(body: dict[str, Any]) -> int:
        async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
            return answer.status

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        return await asyncio.gather(*map(status, bodies))
