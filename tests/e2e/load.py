"""The prober: constant load on one address, every request counted. Runs as a pod.

Sends RATE requests per second, half of them streams, for as long as /tmp/stop does not exist (at
most SECONDS). Prints one JSON line a second with the counts so far, and a last one with
``"final": true`` once every request it sent has ended. Needs aiohttp and the standard library.

A request counts as *failed* when its status is not 200, its connection breaks, or it is longer than
60 s; a stream counts as *truncated* when it began with 200 and ended without a finish reason and
``[DONE]``. Connections are reused and never retried, as the strictest client would do.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import sys
import time
from pathlib import Path

import aiohttp

BASE = os.environ["BASE_URL"]
MODEL = os.environ["MODEL"]
RATE = float(os.environ.get("RATE", "3"))
SECONDS = float(os.environ.get("SECONDS", "600"))
STOP = Path("/tmp/stop")
KEPT_SECONDS = 5
"""How long httpx, and with it the ``openai`` client, keeps an idle connection."""
LOST = (aiohttp.ClientError, TimeoutError, OSError)


class Counts:
    """What has happened so far."""

    def __init__(self) -> None:
        self.sent = self.succeeded = self.failed = self.truncated = self.streams = self.tokens = 0
        self.slowest_seconds = 0.0
        self.reasons: collections.Counter[str] = collections.Counter()
        self.revisions: collections.Counter[str] = collections.Counter()
        self.failed_by: collections.Counter[str] = collections.Counter()
        """Refused or failed requests by the revision that answered so."""

    def lost(self, kind: str, why: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.reasons[f"{time.strftime('%H:%M:%S')} {kind}: {why}"[:300]] += 1

    def line(self, *, final: bool) -> str:
        return json.dumps({**vars(self), "final": final})


async def ask(client: aiohttp.ClientSession, counts: Counts, number: int) -> None:
    """One request, counted exactly once."""
    streamed = number % 2 == 0
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"request {number}: what is a revision?"}],
        "max_tokens": 24,
        "temperature": 0,
        "stream": streamed,
    }
    counts.sent += 1
    counts.streams += streamed
    started = time.monotonic()
    try:
        async with client.post("/v1/chat/completions", json=body) as reply:
            if reply.status != 200:
                text = await reply.text(errors="replace")
                counts.lost("failed", f"{reply.status} {text}")
                counts.failed_by[reply.headers.get("x-llmfleet-revision", "?")] += 1
                return
            counts.revisions[reply.headers.get("x-llmfleet-revision", "?")] += 1
            try:
                complete = await (_read_stream if streamed else _read_answer)(reply, counts)
            except LOST as error:
                counts.lost("truncated", repr(error))
                return
        if complete:
            counts.succeeded += 1
        else:
            counts.lost("truncated", "ended without a finish reason")
    except LOST as error:
        counts.lost("failed", repr(error))
    finally:
        counts.slowest_seconds = max(counts.slowest_seconds, time.monotonic() - started)


async def _read_stream(reply: aiohttp.ClientResponse, counts: Counts) -> bool:
    finished = done = False
    async for raw in reply.content:
        line = raw.decode().rstrip("\r\n")
        if line == "data: [DONE]":
            done = True
        elif line.startswith("data: "):
            for choice in json.loads(line[6:]).get("choices", []):
                finished = finished or choice.get("finish_reason") is not None
                counts.tokens += 1
    return finished and done


async def _read_answer(reply: aiohttp.ClientResponse, counts: Counts) -> bool:
    answer = json.loads(await reply.read())
    counts.tokens += answer["usage"]["completion_tokens"]
    return answer["choices"][0]["finish_reason"] is not None


async def main() -> None:
    counts = Counts()
    timeout = aiohttp.ClientTimeout(total=60)
    kept = aiohttp.TCPConnector(limit=100, keepalive_timeout=KEPT_SECONDS)
    async with aiohttp.ClientSession(BASE, connector=kept, timeout=timeout) as client:
        tasks: set[asyncio.Task[None]] = set()
        started = time.monotonic()
        number = reported = 0
        while not STOP.exists() and time.monotonic() - started < SECONDS:  # noqa: ASYNC240  # microseconds
            number += 1
            task = asyncio.create_task(ask(client, counts, number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            if int(time.monotonic() - started) > reported:
                reported = int(time.monotonic() - started)
                print(counts.line(final=False), flush=True)  # noqa: T201  # its log is its output
            # Each request has its own due time, so a slow answer never thins the load.
            await asyncio.sleep(max(0.0, started + number / RATE - time.monotonic()))
        await asyncio.gather(*tasks)
    print(counts.line(final=True), flush=True)  # noqa: T201  # its log is its output


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
