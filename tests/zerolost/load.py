"""The load: RATE requests a second on one address, every one counted exactly once. Runs as a pod.

Requests go round in four kinds: whole answer or stream, over a kept or a new connection; one in
LONG_EVERY asks for LONG_TOKENS. **Nothing is retried**, but for one thing: with WAIT_SECONDS
clients wait for engines, as at zero replicas; a 503 ``no_engine_available`` is asked again after
its Retry-After, and each is counted in ``waits``. Kept connections are dropped after 5 idle
seconds, as httpx, and with it the ``openai`` client, does. Prints one JSON line a second and one
for each loss, and a last one with ``"final": true`` when /tmp/stop exists (or SECONDS have passed)
and all have ended.

A request is *failed* when its status is not 200, no connection is made, the connection breaks
before the status, or no end has come after 60 s; *truncated* when it began with 200 and did not end
with a finish reason (and ``[DONE]``). Needs aiohttp and the standard library.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

BASE = os.environ["BASE_URL"]
MODEL = os.environ["MODEL"]
RATE = float(os.environ.get("RATE", "100"))
SECONDS = float(os.environ.get("SECONDS", "3600"))
TOKENS = int(os.environ.get("TOKENS", "8"))
LONG_TOKENS = int(os.environ.get("LONG_TOKENS", "200"))
LONG_EVERY = int(os.environ.get("LONG_EVERY", "100"))
WAIT_SECONDS = float(os.environ.get("WAIT_SECONDS", "0"))
NO_ENGINE = "no_engine_available"
LARGE_EVERY, LARGE_BYTES = 20, 100_000
STOP = Path(os.environ.get("STOP_FILE", "/tmp/stop"))
SHOWN_LOSSES = 300
MOST_WAITING = 800
"""Above so many requests under way the load waits: a slower machine gets a lower rate, no storm."""


@dataclass
class Counts:
    """What has happened so far."""

    sent: int = 0
    succeeded: int = 0
    failed: int = 0
    truncated: int = 0
    streams: int = 0
    new_connections: int = 0
    tokens: int = 0
    most_waiting: int = 0
    slowest_seconds: float = 0.0
    seconds: float = 0.0
    waits: int = 0
    """Answers that told a client to come again."""
    first_wait: float | None = None
    last_wait: float | None = None
    """Unix times of the first and the last of them."""
    revisions: collections.Counter[str] = field(default_factory=collections.Counter)

    def line(self, *, final: bool) -> str:
        return json.dumps({**vars(self), "final": final})


@dataclass
class Asked:
    """One request, and how far it has come."""

    number: int
    begun: float = field(default_factory=time.time)
    status: int | None = None
    request_id: str = ""
    chunks: int = 0

    @property
    def streamed(self) -> bool:
        return self.number % 2 == 0

    @property
    def new_connection(self) -> bool:
        return self.number % 4 >= 2

    def body(self) -> dict[str, Any]:
        long = self.number % LONG_EVERY == 0
        return {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"request {self.number}: what is drift?"}],
            "max_tokens": LONG_TOKENS if long else TOKENS,
            "ignore_eos": True,
            "temperature": 0,
            "stream": self.streamed,
            # More than the router keeps for a second try; the engine makes no prompt of it.
            "user": "x" * LARGE_BYTES if self.number % LARGE_EVERY == 0 else "prober",
        }


class Load:
    """Sends, and counts what came of it."""

    def __init__(self, kept: aiohttp.ClientSession, new: aiohttp.ClientSession) -> None:
        self.counts = Counts()
        self._kept, self._new = kept, new

    async def ask(self, asked: Asked) -> None:
        """One request; adds one to exactly one of succeeded, failed and truncated."""
        counts = self.counts
        counts.sent += 1
        counts.streams += asked.streamed
        counts.new_connections += asked.new_connection
        pause = await self._try(asked)
        while pause is not None:
            await asyncio.sleep(pause)
            pause = await self._try(asked)

    async def _try(self, asked: Asked) -> float | None:
        """Sends it, and counts what came of it; or says in how many seconds to come again."""
        counts, begun = self.counts, time.time()
        session = self._new if asked.new_connection else self._kept
        try:
            path = f"{BASE}/v1/chat/completions"
            async with session.post(path, json=asked.body()) as reply:
                asked.status = reply.status
                asked.request_id = reply.headers.get("x-request-id", "")
                if reply.status != 200:
                    return self._refused(asked, await reply.text(), reply.headers)
                counts.revisions[reply.headers.get("x-llmfleet-revision", "?")] += 1
                whole = await (self._read_stream if asked.streamed else self._read_answer)(
                    reply, asked
                )
            if whole:
                counts.succeeded += 1
            else:
                self._lost(asked, "ended without a finish reason")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
            self._lost(asked, repr(error))
        finally:
            counts.slowest_seconds = max(counts.slowest_seconds, time.time() - begun)
        return None

    def _refused(self, asked: Asked, text: str, headers: Mapping[str, str]) -> float | None:
        """Lost, unless it is the answer that tells clients to come again, and these do."""
        now = time.time()
        waits = now - asked.begun < WAIT_SECONDS and NO_ENGINE in text
        if asked.status != 503 or not waits or "retry-after" not in headers:
            self._lost(asked, text[:300])
            return None
        counts = self.counts
        counts.waits += 1
        counts.first_wait, counts.last_wait = counts.first_wait or now, now
        return float(headers["retry-after"])

    def _lost(self, asked: Asked, why: str) -> None:
        kind = "truncated" if asked.status == 200 else "failed"
        setattr(self.counts, kind, getattr(self.counts, kind) + 1)
        if self.counts.failed + self.counts.truncated <= SHOWN_LOSSES:
            loss = {
                **asdict(asked),
                "ended": time.time(),
                "kind": kind,
                "streamed": asked.streamed,
                "new_connection": asked.new_connection,
                "why": why[:300],
            }
            # A line each: a container's log splits lines above 16 KiB.
            print(json.dumps({"loss": loss}), flush=True)  # noqa: T201  # its log is its output

    async def _read_stream(self, reply: aiohttp.ClientResponse, asked: Asked) -> bool:
        finished = done = False
        async for raw in reply.content:
            line = raw.strip()
            if line == b"data: [DONE]":
                done = True
            elif line.startswith(b"data: "):
                asked.chunks += 1
                for choice in json.loads(line[6:]).get("choices", []):
                    finished = finished or choice.get("finish_reason") is not None
        self.counts.tokens += asked.chunks
        return finished and done

    async def _read_answer(self, reply: aiohttp.ClientResponse, _: Asked) -> bool:
        answer = json.loads(await reply.read())
        self.counts.tokens += answer["usage"]["completion_tokens"]
        return answer["choices"][0]["finish_reason"] is not None


async def send_all(load: Load) -> None:
    """Sends until told to stop, then waits for what is under way."""
    counts = load.counts
    tasks: set[asyncio.Task[None]] = set()
    started = reported = time.monotonic()
    number, due = 0, started
    while not STOP.exists() and time.monotonic() - started < SECONDS:  # noqa: ASYNC240  # microseconds
        number += 1
        task = asyncio.create_task(load.ask(Asked(number)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        counts.most_waiting = max(counts.most_waiting, len(tasks))
        now = time.monotonic()
        counts.seconds = now - started
        if now - reported >= 1:
            reported = now
            print(counts.line(final=False), flush=True)  # noqa: T201  # its log is its output
        # Each request has its own due time, so a slow answer never thins the load.
        due += 1 / RATE
        await asyncio.sleep(max(0.0, due - now))
        while len(tasks) >= MOST_WAITING:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            due = time.monotonic()
    await asyncio.gather(*tasks)


async def main() -> None:
    timeout = aiohttp.ClientTimeout(total=60)
    kept = aiohttp.TCPConnector(limit=0, keepalive_timeout=5)
    new = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        aiohttp.ClientSession(connector=kept, timeout=timeout) as kept_session,
        aiohttp.ClientSession(connector=new, timeout=timeout) as new_session,
    ):
        load = Load(kept_session, new_session)
        await send_all(load)
    print(load.counts.line(final=True), flush=True)  # noqa: T201  # its log is its output


if __name__ == "__main__":
    asyncio.run(main())
