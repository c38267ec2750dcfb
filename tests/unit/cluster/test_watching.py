from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.errors import Expired, Forbidden, Unavailable
from llmfleet.cluster.store import Listing
from llmfleet.cluster.watching import REOPEN_SECONDS, Reflector

JSON = dict[str, Any]


def pod(name: str, version: int) -> JSON:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": str(version)}}


class Server:
    """Lists what is there, then tells the events of one watch after the other."""

    def __init__(self, *watches: list[tuple[str, JSON]]) -> None:
        self._watches = list(watches)
        self.listed: list[JSON] = [pod("a", 4)]
        self.lists = 0
        self.all_sent = asyncio.Event()

    async def get(self, path: str, query: JSON) -> JSON:
        self.lists += 1
        return {
            "apiVersion": "v1",
            "kind": "PodList",
            "metadata": {"resourceVersion": "10"},
            "items": self.listed,
        }

    async def watch(self, path: str, query: JSON) -> AsyncIterator[JSON]:
        events = self._watches.pop(0) if self._watches else []
        for kind, body in events:
            self.listed = []
            yield {"type": kind, "object": body}
        self.all_sent.set()
        await asyncio.Event().wait()


class Names:
    """A sink that knows names only, and takes everything it is given."""

    def __init__(self) -> None:
        self.held: set[str] = set()

    def begin_list(self, list_version: str | None) -> Listing:
        self.held = set()
        return Listing(take=self.put, end=lambda: None)

    def put(self, body: JSON) -> None:
        self.held.add(body["metadata"]["name"])

    def remove(self, body: JSON) -> None:
        self.held.discard(body["metadata"]["name"])


async def follow(server: Server, sink: Names) -> None:
    """Run a reflector until it has taken in all there is to tell."""
    api = cast("ApiClient", server)
    task = asyncio.create_task(Reflector(api, "pods", "/pods", sink, selectors={}).run())
    await asyncio.wait_for(server.all_sent.wait(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_watch_when_an_older_event_follows_a_deletion_then_it_is_listed_again() -> None:
    sink = Names()
    server = Server([("DELETED", pod("a", 12)), ("MODIFIED", pod("a", 11))])
    await follow(server, sink)
    assert server.lists == 2
    assert sink.held == set()


async def test_watch_when_events_come_in_order_or_twice_then_one_list_is_enough() -> None:
    sink = Names()
    sent = [("ADDED", pod("b", 11)), ("ADDED", pod("b", 11)), ("BOOKMARK", pod("", 13))]
    server = Server(sent)
    await follow(server, sink)
    assert server.lists == 1
    assert sink.held == {"a", "b"}


class Ending(Server):
    """Ends every watch at once, in one way; notes when each was asked for."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error
        self.begun: list[float] = []
        self.asked: list[float] = []
        self.third = asyncio.Event()

    async def get(self, path: str, query: JSON) -> JSON:
        self.begun.append(time.monotonic())
        return await super().get(path, query)

    async def watch(self, path: str, query: JSON) -> AsyncIterator[JSON]:
        self.asked.append(time.monotonic())
        if len(self.asked) == 3:
            self.third.set()
        if self.error is not None:
            raise self.error
        for nothing in ():
            yield nothing


@pytest.mark.long
@pytest.mark.parametrize(
    "error",
    [None, Expired("too old", status=410), Unavailable("reset", status=0)],
    ids=["at its end", "too old", "broken"],
)
async def test_watch_when_it_ends_at_once_then_each_one_is_at_least_a_second_after_the_other(
    error: Exception | None,
) -> None:
    server = Ending(error)
    api = cast("ApiClient", server)
    task = asyncio.create_task(Reflector(api, "pods", "/pods", Names(), selectors={}).run())
    await asyncio.wait_for(server.third.wait(), 30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    begun = server.begun[0]  # before the first watch
    assert server.asked[1] - begun >= 1
    assert server.asked[2] - begun >= 2
    assert 1 <= REOPEN_SECONDS[0] < REOPEN_SECONDS[1], "not all at the same moment"


class Refusing(Server):
    """Does not let its first watch in, and has nothing to tell the others."""

    refused = False

    async def watch(self, path: str, query: JSON) -> AsyncIterator[JSON]:
        if not self.refused:
            self.refused = True
            raise Forbidden("cannot watch resource", status=403)
        for nothing in ():
            yield nothing
        if int(query["timeoutSeconds"]) > 60:
            await asyncio.Event().wait()


async def test_refusal_when_the_watch_is_let_in_again_but_nothing_happens_then_it_is_over() -> None:
    api = cast("ApiClient", Refusing())
    reflector = Reflector(api, "pods", "/pods", Names(), selectors={})
    task = asyncio.create_task(reflector.run())
    async with asyncio.timeout(5):
        while reflector.refusal is None:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        while reflector.refusal is not None:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
