"""An HTTP proxy between one operator and the API server that makes one fault happen, and counts.

It speaks plain HTTP on loopback to the operator and TLS to the API server; the operator's own token
passes through. Calls and watch events are numbered from the moment it is armed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from tests.faults.faults import (
    JSON,
    ON_WATCH,
    OUTAGE_SECONDS,
    SLOW_SECONDS,
    Call,
    Fault,
    Kind,
    parse_call,
)

HELD_EVENT_SECONDS = 1.0
HIDDEN_SECONDS = 2.0
"""After a lost event the stream goes on for so long, then its history has expired."""
_HOP_HEADERS = frozenset({"host", "connection", "content-length", "transfer-encoding"})
_EXPIRED: JSON = {
    "type": "ERROR",
    "object": {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410,
    },
}  # fmt: skip


@dataclass
class Usage:
    """What went through, by RBAC verb and resource."""

    calls: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(verb, API group, plural[/subresource]) → how many."""
    sent_bytes: int = 0
    received_bytes: int = 0

    def count(self, call: Call) -> None:
        """Count one call."""
        what = f"{call.plural}/{call.subresource}" if call.subresource else call.plural
        self.calls[(call.verb, call.group, what)] += 1

    def add(self, other: Usage) -> None:
        """Take another's counts in."""
        self.calls.update(other.calls)
        self.sent_bytes += other.sent_bytes
        self.received_bytes += other.received_bytes

    @property
    def writes(self) -> int:
        """Calls that change something."""
        return sum(
            count for (verb, _, _), count in self.calls.items() if verb not in _READING_VERBS
        )


_READING_VERBS = frozenset({"get", "list", "watch"})


class FaultProxy:
    """One listener for one operator.

    Args:
        upstream: the API server's URL.
        tls: trusts the API server's certificate.
        fault: what shall happen, once; None only counts.
        kill: kills the operator with SIGKILL and starts it again.
    """

    def __init__(
        self,
        upstream: str,
        tls: ssl.SSLContext,
        fault: Fault | None,
        kill: Callable[[], Awaitable[None]],
    ) -> None:
        self._upstream = upstream
        self._tls = tls
        self._fault = fault
        self._kill = kill
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._down_until = 0.0
        self._watches: set[asyncio.Transport] = set()
        self._watchers: set[asyncio.Task[object]] = set()
        """aiohttp forgets the handlers of clients that are gone, so they are ended here."""
        self._first_lists: dict[str, bytes] = {}
        self._stale: str | None = None
        self._expired: set[str] = set()
        self._events: Counter[str] = Counter()
        self.armed = False
        self.struck = False
        self.calls: list[Call] = []
        """Since it was armed, watches aside."""
        self.watched: dict[str, int] = defaultdict(int)
        """Watch events since it was armed, by plural."""
        self.answers: list[tuple[float, Call, int]] = []
        """When each call was answered (monotonic seconds), and with which status."""
        self.holding = asyncio.Event()
        """A call is being held."""
        self._held: list[asyncio.Event] = []
        """One for each call that is held; set when it was answered."""
        self._released = asyncio.Event()
        self.usage = Usage()
        self.last_call = time.monotonic()
        self.url = ""

    async def start(self) -> None:
        """Listen on a free port of loopback."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0), read_bufsize=8 * 2**20
        )
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        server = site._server
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]

    async def stop(self) -> None:
        """Close everything."""
        self._cut_watches()
        watchers = list(self._watchers)
        for task in watchers:
            task.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def arm(self) -> None:
        """Number calls and events from here on."""
        self.armed = True
        self.calls.clear()
        self.watched.clear()
        self._events.clear()

    async def release(self) -> None:
        """Let pass what is held, and wait until all of it is answered."""
        self._released.set()
        for answered in self._held:
            await answered.wait()

    def quiet_seconds(self) -> float:
        """How long ago the last call was, watches aside."""
        return time.monotonic() - self.last_call

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        watch = request.query.get("watch") in {"true", "1"}
        call = parse_call(request.method, request.path, watch)
        self.usage.count(call)
        body = await request.read()
        self.usage.sent_bytes += len(body)
        if time.monotonic() < self._down_until:
            self.last_call = time.monotonic()
            return _status(503, "ServiceUnavailable", "the server is down")
        if watch:
            task = asyncio.current_task()
            assert task is not None
            self._watchers.add(task)
            task.add_done_callback(self._watchers.discard)
            return await self._watch(request, call)
        if self.armed and self._fault is not None and self._fault.kind is Kind.HOLD:
            return await self._pass_held(self._fault, request, call, body)
        self.last_call = time.monotonic()
        number = len(self.calls)
        if self.armed:
            self.calls.append(call)
        fault = self._fault
        if not self.armed or self.struck or fault is None or fault.kind in ON_WATCH:
            return await self._pass(request, call, body)
        if fault.at != number or (fault.kind is Kind.CONFLICT and not call.writes):
            return await self._pass(request, call, body)
        self.struck = True
        return await self._strike(fault.kind, request, call, body)

    async def _pass_held(
        self, fault: Fault, request: web.Request, call: Call, body: bytes
    ) -> web.Response:
        if call.decides and fault.plural in {"", call.plural}:
            self.struck = True
            self.holding.set()
        if not self.holding.is_set():
            return await self._pass(request, call, body)
        answered = asyncio.Event()
        self._held.append(answered)
        await self._released.wait()
        try:
            return await self._pass(request, call, body)
        finally:
            answered.set()

    async def _strike(  # noqa: PLR0911 - one way for each kind
        self, kind: Kind, request: web.Request, call: Call, body: bytes
    ) -> web.StreamResponse:
        match kind:
            case Kind.KILL_BEFORE:
                await self._kill()
                return _drop(request)
            case Kind.KILL_AFTER:
                await self._pass(request, call, body)
                await self._kill()
                return _drop(request)
            case Kind.LOSE_REPLY:
                await self._pass(request, call, body)
                return _drop(request)
            case Kind.CONFLICT:
                return _status(409, "Conflict", "the object has been modified")
            case Kind.THROTTLE:
                return _status(429, "TooManyRequests", "slow down", {"Retry-After": "1"})
            case Kind.OUTAGE:
                self._down_until = time.monotonic() + OUTAGE_SECONDS
                self._cut_watches()
                return _status(500, "InternalError", "etcd is gone")
            case Kind.SLOW:
                answer = await self._pass(request, call, body)
                await asyncio.sleep(SLOW_SECONDS)
                return answer
        raise AssertionError(f"{kind} does not strike calls")

    async def _pass(self, request: web.Request, call: Call, body: bytes) -> web.Response:
        if call.verb == "list" and self._stale == call.plural:
            self._stale = None
            return _json(200, self._first_lists[call.plural])
        assert self._session is not None
        async with self._session.request(
            request.method,
            self._upstream + request.raw_path,
            headers=_headers(request),
            data=body or None,
        ) as answer:
            data = await answer.read()
        self.usage.received_bytes += len(data)
        self.last_call = time.monotonic()
        self.answers.append((self.last_call, call, answer.status))
        if call.verb == "list":
            self._expired.discard(call.plural)
            self._first_lists.setdefault(call.plural, data)
        kept = {
            name: value
            for name, value in answer.headers.items()
            if name.lower() in {"content-type", "retry-after"}
        }
        return web.Response(status=answer.status, body=data, headers=kept)

    async def _watch(self, request: web.Request, call: Call) -> web.StreamResponse:
        assert self._session is not None
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        if call.plural in self._expired:
            await answer.prepare(request)
            await answer.write(json.dumps(_EXPIRED).encode() + b"\n")
            return answer
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(
            self._upstream + request.raw_path, headers=_headers(request), timeout=timeout
        ) as upstream:
            if upstream.status != 200:
                return _json(upstream.status, await upstream.read())
            transport = request.transport
            if transport is None or transport.is_closing():
                return answer  # its client was killed meanwhile
            await answer.prepare(request)
            assert isinstance(transport, asyncio.Transport)
            self._watches.add(transport)
            stream = _Stream(self, call.plural, upstream.content, answer, transport)
            try:
                with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                    await stream.run()
            finally:
                self._watches.discard(transport)
        return answer

    def fault_of_event(self, plural: str) -> Kind | None:
        """The fault that strikes the watch event arriving now, if one does."""
        number = self._events[plural]
        self._events[plural] += 1
        if not self.armed:
            return None
        self.watched[plural] += 1
        fault = self._fault
        hit = fault is not None and fault.plural == plural and fault.at == number
        if self.struck or not hit or fault is None:
            return None
        self.struck = True
        return fault.kind

    def expire(self, plural: str) -> None:
        """Watches of this collection are answered 410 until it is listed."""
        self._expired.add(plural)

    async def kill_for_stale_list(self, plural: str) -> None:
        """Kill the operator; its next list of this collection is the first one again."""
        if plural in self._first_lists:
            self._stale = plural
        await self._kill()

    def _cut_watches(self) -> None:
        for transport in list(self._watches):
            transport.abort()


class _Stream:
    """One watch on its way through."""

    def __init__(
        self,
        proxy: FaultProxy,
        plural: str,
        source: aiohttp.StreamReader,
        target: web.StreamResponse,
        transport: asyncio.Transport,
    ) -> None:
        self._proxy = proxy
        self._plural = plural
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
            self._proxy.usage.received_bytes += len(line)
            match self._proxy.fault_of_event(self._plural):
                case None:
                    await self._forward(line)
                case Kind.CUT:
                    self._transport.abort()
                    return
                case Kind.GONE:
                    self._expire()
                    return
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


def _headers(request: web.Request) -> dict[str, str]:
    kept = {
        name: value for name, value in request.headers.items() if name.lower() not in _HOP_HEADERS
    }
    kept["Accept-Encoding"] = "identity"
    return kept


def _drop(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _json(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


def _status(
    code: int, reason: str, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    body = {
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": message, "reason": reason, "code": code,
    }  # fmt: skip
    return web.json_response(body, status=code, headers=headers)
