"""A watch on its way through the proxy, and what faults do to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from tests.faults.faults import Call, Kind
from tests.faults.usage import Traffic

if TYPE_CHECKING:
    from tests.faults.proxy import FaultProxy

HELD_EVENT_SECONDS = 0.5
"""Shorter than what counts as quiet (``run.QUIET_SECONDS``): else the end is looked at before."""
HIDDEN_SECONDS = 2.0
"""After a lost event the stream goes on for so long, then its history has expired."""


class Stream:
    """One watch on its way through."""

    def __init__(
        self,
        proxy: FaultProxy,
        call: Call,
        traffic: Traffic,
        source: aiohttp.StreamReader,
        target: web.StreamResponse,
        transport: asyncio.Transport,
    ) -> None:
        self._proxy = proxy
        self._plural = call.plural
        self._traffic = traffic
        self._source = source
        self._target = target
        self._transport = transport
        self._held: bytes | None = None

    async def run(self) -> None:
        """Forward events until one side ends the stream."""
        while line := await self._next():
            if self._transport.is_closing():
                return  # its client was killed; the event is the next one's
            if b'"type":"BOOKMARK"' in line:
                await self._target.write(line)
                continue
            self._traffic.received_bytes += len(line)
            match self._proxy.fault_of_event(self._plural):
                case None:
                    await self._forward(line)
                case Kind.CUT:
                    self._transport.abort()
                    return
                case Kind.GONE:
                    self._proxy.expire(self._plural)
                    return  # as when its time is up; resuming it is what fails
                case Kind.DUPLICATE:
                    await self._target.write(line)
                    await self._target.write(line)
                case Kind.REORDER:
                    self._held = line
                case Kind.HIDE:
                    asyncio.get_running_loop().call_later(HIDDEN_SECONDS, self._expire)
                case Kind.STALL:
                    await asyncio.Event().wait()  # until the client gives up
                case Kind.STALE_LIST:
                    await self._proxy.kill_for_stale_list(self._plural)
                    return

    def _expire(self) -> None:
        self._proxy.expire(self._plural)
        self._transport.abort()

    async def _next(self) -> bytes:
        if self._held is None:
            return await self._source.readline()
        reading = asyncio.ensure_future(self._source.readline())
        try:
            done, _ = await asyncio.wait({reading}, timeout=HELD_EVENT_SECONDS)
            if not done:
                await self._target.write(self._held)
                self._held = None
            return await reading
        finally:
            reading.cancel()

    async def _forward(self, line: bytes) -> None:
        await self._target.write(line)
        if self._held is not None:
            await self._target.write(self._held)
            self._held = None
