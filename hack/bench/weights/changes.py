"""What runs in the network namespace: the changes, the aborts, and the load meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from hack.bench.router import isolated
from hack.controlplane.apiserver import ApiServer
from hack.processes.router import RouterProcess

JSON = dict[str, Any]

STABLE, CANARY = isolated.REVISIONS
CONNECTIONS = 16
PAUSE_SECONDS = 0.01
STREAM_EVERY = 4
REST_EVERY = 200
"""Changes after which the canary gets nothing until its cluster is removed."""
SETTLE_SECONDS = 0.3
CONFIRM_SECONDS = 10


@dataclass
class Load:
    """A closed loop on keep-alive connections; every fourth request is a stream."""

    port: int
    total: int = 0
    failures: list[str] = field(default_factory=list)
    last: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Revision → when the request of it that began last was sent, and when its answer began."""
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Asks, in a thread of its own, as long as the block lasts."""
        thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    async def _all(self) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*[self._one_after_another(session, i) for i in range(CONNECTIONS)])

    async def _one_after_another(self, session: aiohttp.ClientSession, number: int) -> None:
        while not self._stop.is_set():
            number += 1
            await self._ask(session, is_stream=number % STREAM_EVERY == 0)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(self, session: aiohttp.ClientSession, *, is_stream: bool) -> None:
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        body = {"messages": [{"role": "user", "content": "hello"}], "stream": is_stream}
        sent = time.perf_counter()
        try:
            async with session.post(url, json=body) as answer:
                began = time.perf_counter()
                text = await answer.text()  # raises when the answer is cut
                if answer.status != 200 or not text:
                    self.failures.append(f"{answer.status} {text[:200]}")
                revision = answer.headers.get("x-llmfleet-revision", "")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failures.append(repr(error))
            return
        finally:
            self.total += 1
        if sent > self.last.get(revision, (0.0, 0.0))[0]:
            self.last[revision] = (sent, began)


def measure(server: ApiServer, router: RouterProcess, arguments: list[str]) -> JSON:
    """Changes and aborts, one after another, each confirmed by the router itself."""
    changes, aborts = map(int, arguments)
    load = Load(router.ports[0])
    began = time.perf_counter()
    with isolated.StatusWriter(server, router) as status, load.running():
        confirmed_ms = _change(status, router, changes)
        changing_seconds = time.perf_counter() - began
        changed_under = load.total
        found = [_abort(status, router, load, changes + 2 + 2 * i) for i in range(aborts)]
    return {
        "changes": changes,
        "changing_seconds": round(changing_seconds, 1),
        "write_sent_to_confirmed_ms": sorted(confirmed_ms),
        "requests_while_changing": changed_under,
        "requests": load.total,
        "failed": len(load.failures),
        "failures": load.failures[:20],
        "aborts": found,
    }


def _change(status: isolated.StatusWriter, router: RouterProcess, changes: int) -> list[float]:
    chance = random.Random(1)
    found = []
    for number in range(1, changes + 1):
        canary = 0 if number % REST_EVERY == 0 else chance.randrange(101)
        sent, _ = status.write(number + 1, {STABLE: 100 - canary, CANARY: canary})
        _confirmed(router, number + 1)
        found.append(1000 * (time.perf_counter() - sent))
        if number % REST_EVERY == 0:
            _until_removed(router)
    return found


def _abort(
    status: isolated.StatusWriter, router: RouterProcess, load: Load, generation: int
) -> JSON:
    """Half of the load on the canary, then nothing; in milliseconds after the write was sent."""
    status.write(generation, {STABLE: 50, CANARY: 50})
    _confirmed(router, generation)
    time.sleep(SETTLE_SECONDS)
    sent, answered = status.write(generation + 1, {STABLE: 100})
    _confirmed(router, generation + 1)
    confirmed = time.perf_counter()
    time.sleep(SETTLE_SECONDS)
    started, began = load.last[CANARY]
    return {
        "last_request_started_ms": 1000 * (started - sent),
        "its_answer_began_ms": 1000 * (began - sent),
        "write_answered_ms": 1000 * (answered - sent),
        "confirmed_ms": 1000 * (confirmed - sent),
    }


def _confirmed(router: RouterProcess, generation: int) -> None:
    query = f"generation={generation}&timeout={CONFIRM_SECONDS}"
    if (state := _state(router, query))["trafficGeneration"] != generation:
        raise RuntimeError(f"generation {generation} is not confirmed: {state}")


def _until_removed(router: RouterProcess) -> None:
    """The canary's pods go, and with them its cluster; then they are there again."""
    router.delete_slice(CANARY)
    deadline = time.monotonic() + 20
    while len(_state(router)["revisions"]) > 1:
        if time.monotonic() > deadline:
            raise RuntimeError("the idle cluster is not removed")
        time.sleep(0.05)
    router.slice_of(CANARY, isolated.ENGINE_ADDRESS)


def _state(router: RouterProcess, query: str = "") -> JSON:
    url = f"http://127.0.0.1:{router.ports[1]}/llmfleet/state?{query}"
    with urllib.request.urlopen(url, timeout=CONFIRM_SECONDS + 5) as answer:
        state: JSON = json.load(answer)
    return state


if __name__ == "__main__":
    isolated.main(measure, "-chunks", "5", "-gap", "10ms")
