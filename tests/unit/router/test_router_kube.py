"""What the agent takes from EndpointSlices, and from watches that stall or go back in time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from llmfleet_router import kube
from llmfleet_router.kube import Watched, ready_endpoints
from llmfleet_router.kubeconfig import KubeAccess
from llmfleet_router.model import Endpoint

JSON = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
GOOD = Endpoint(address="10.0.0.1", port=8000)


def endpoint_slice(address: str = "10.0.0.1", **port: Any) -> JSON:
    return {
        "metadata": {"labels": {"llmfleet.dev/revision": "aaaa"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", **port}],
        "endpoints": [{"addresses": [address]}],
    }


@pytest.mark.parametrize(
    "other",
    [
        endpoint_slice(),
        endpoint_slice(port=None),
        endpoint_slice("010.000.000.001", port=8000),
        endpoint_slice("engine.example", port=8000),
    ],
    ids=["no port", "port null", "leading zeros", "a name"],
)
def test_endpoints_when_a_slice_has_what_envoy_refuses_then_it_is_left_out(other: JSON) -> None:
    assert ready_endpoints([other, endpoint_slice(port=8000)]) == {"aaaa": (GOOD,)}


def traffic(version: int, generation: int) -> JSON:
    meta = {"name": "chat", "resourceVersion": str(version)}
    return {"metadata": meta, "status": {"trafficGeneration": generation}}


def _version(item: JSON) -> int:
    return int(item["metadata"]["resourceVersion"])


@contextlib.asynccontextmanager
async def serving(answer: Handler) -> AsyncIterator[str]:
    """The address of a server that answers every question in this way."""
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


class Server:
    """Lists one object, then tells the events of one watch after the other, and falls silent."""

    def __init__(self, *watches: list[tuple[str, JSON]]) -> None:
        self._watches = list(watches)
        self.listed = traffic(10, 1)
        self.queries: list[dict[str, str]] = []
        self.all_sent = asyncio.Event()
        """All watches have been sent to their end."""
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        app = web.Application()
        app.router.add_get("/chats", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def lists(self) -> int:
        return sum("watch" not in query for query in self.queries)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """An answer to a list, or to a watch."""
        self.queries.append(dict(request.query))
        if "watch" not in request.query:
            meta = {"resourceVersion": self.listed["metadata"]["resourceVersion"]}
            return web.json_response({"metadata": meta, "items": [self.listed]})
        answer = web.StreamResponse()
        await answer.prepare(request)
        for kind, item in self._watches.pop(0) if self._watches else []:
            self.listed = max(self.listed, item, key=_version)
            await answer.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")
        if not self._watches:
            self.all_sent.set()
        await asyncio.Event().wait()
        return answer


@contextlib.asynccontextmanager
async def following(server: Server) -> AsyncIterator[list[int]]:
    """An agent's watch of the server, and the traffic generations it took, in order."""
    seen: list[int] = []

    def take(items: dict[str, JSON]) -> None:
        seen.extend(item["status"]["trafficGeneration"] for item in items.values())

    async with serving(server.answer) as url:
        access = KubeAccess(url=url, ssl_context=None)
        task = asyncio.create_task(Watched(access, "chats", {}, take).run())
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_watch_when_an_older_command_follows_then_it_is_not_taken_but_listed_again() -> None:
    server = Server([("MODIFIED", traffic(12, 2)), ("MODIFIED", traffic(11, 1))], [])
    async with following(server) as seen:
        await asyncio.wait_for(server.all_sent.wait(), 5)
    assert seen == [1, 2, 2]
    assert server.lists() == 2


async def test_watch_when_events_come_in_order_or_twice_then_one_list_is_enough() -> None:
    server = Server([("MODIFIED", traffic(9 + n, n)) for n in (2, 2, 3)])
    async with following(server) as seen:
        async with asyncio.timeout(5):
            while len(seen) < 4:  # noqa: ASYNC110 - the agent tells nobody
                await asyncio.sleep(0.01)
    assert seen == [1, 2, 2, 3]
    assert server.lists() == 1


async def test_watch_when_the_stream_is_silent_then_it_is_given_up_long_before_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kube, "SILENCE_SECONDS", 0.2)
    server = Server([], [])
    async with following(server):
        await asyncio.wait_for(server.all_sent.wait(), 10)
    watches = [query for query in server.queries if "watch" in query]
    assert len(watches) == 2
    assert {query["allowWatchBookmarks"] for query in watches} == {"true"}
    assert server.lists() == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("status", "told"),
    [(200, None), (410, None), (200, 410), (503, None)],
    ids=["at its end", "too old", "too old in the stream", "refused"],
)
async def test_watch_when_it_ends_at_once_then_each_one_is_at_least_a_second_after_the_other(
    status: int, told: int | None
) -> None:
    listed: list[float] = []
    asked: list[float] = []
    third = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if "watch" not in request.query:
            listed.append(time.monotonic())
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})
        asked.append(time.monotonic())
        if len(asked) == 3:
            third.set()
        event = {"type": "ERROR", "object": {"code": told}}
        return web.Response(status=status, text="" if told is None else json.dumps(event) + "\n")

    async with serving(answer) as url:
        access = KubeAccess(url=url, ssl_context=None)
        task = asyncio.create_task(Watched(access, "chats", {}, lambda items: None).run())
        await asyncio.wait_for(third.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    begun = listed[0]  # before the first watch
    assert asked[1] - begun >= 1
    assert asked[2] - begun >= 2
    low, high = kube.REOPEN_SECONDS
    assert 1 <= low < high, "not all routers at the same moment"


def test_silence_when_bookmarks_come_once_a_minute_then_it_is_longer_but_not_by_much() -> None:
    """The API server spreads them over 60 to 75 s."""
    assert 75 < kube.SILENCE_SECONDS <= 90
