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
from tests.faults.stream import Stream
from tests.faults.usage import Usage

Late = tuple[Call, int | Exception]
"""A call that was held: the status it was answered, or why it was not."""
_HOP_HEADERS = frozenset({"host", "connection", "content-length", "transfer-encoding"})
_EXPIRED: JSON = {
    "type": "ERROR",
    "object": {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410,
    },
}  # fmt: skip


class FaultProxy:
    """One listener for one operator.

    Args:
        upstream: the API server's URL.
        tls: trusts the API server's certificate.
        fault: what shall happen, once; None only counts.
        kill: kills the operator with SIGKILL and starts it again.
        caller: the operator's name, for the counts.
    """

    def __init__(
        self,
        upstream: str,
        tls: ssl.SSLContext,
        fault: Fault | None,
        kill: Callable[[], Awaitable[None]],
        caller: str = "operator",
    ) -> None:
        self._caller = caller
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
        self._held: list[asyncio.Future[Late]] = []
        """One for each call that is held; done when it was answered."""
        self._released = asyncio.Event()
        self.usage = Usage()
        self.last_call = time.monotonic()
        """Watches and Leases aside, which never rest."""
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

    async def release(self) -> list[Late]:
        """Let pass what is held, and wait for what the API server says to each of it."""
        self._released.set()
        return list(await asyncio.gather(*self._held))

    def quiet_seconds(self) -> float:
        """How long ago the last call was, watches and Leases aside."""
        return time.monotonic() - self.last_call

    async def quiet(self, seconds: float) -> None:
        """Wait until the operator has called nothing for so long."""
        while (rest := seconds - self.quiet_seconds()) > 0:  # noqa: ASYNC110 - no event tells of none
            await asyncio.sleep(rest)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        watch = request.query.get("watch") in {"true", "1"}
        call = parse_call(request.method, request.path, watch)
        traffic = self.usage.of(self._caller, call)
        traffic.requests += 1
        body = await request.read()
        traffic.sent_bytes += len(body)
        if time.monotonic() < self._down_until:
            self._note(call)
            return _status(503, "ServiceUnavailable", "the server is down")
        if watch:
            task = asyncio.current_task()
            assert task is not None
            self._watchers.add(task)
            task.add_done_callback(self._watchers.discard)
            return await self._watch(request, call)
        if self.armed and self._fault is not None and self._fault.kind is Kind.HOLD:
            return await self._pass_held(self._fault, request, call, body)
        self._note(call)
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

    def _note(self, call: Call) -> None:
        if call.plural != "leases":
            self.last_call = time.monotonic()

    async def _pass_held(
        self, fault: Fault, request: web.Request, call: Call, body: bytes
    ) -> web.Response:
        if call.decides and fault.plural in {"", call.plural}:
            self.struck = True
            self.holding.set()
        if not self.holding.is_set():
            return await self._pass(request, call, body)
        late: asyncio.Future[Late] = asyncio.get_running_loop().create_future()
        self._held.append(late)
        await self._released.wait()
        try:
            answer = await self._pass(request, call, body)
        except Exception as error:
            late.set_result((call, error))
            raise
        late.set_result((call, answer.status))
        return answer

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
            case Kind.OUTAGE | Kind.LONG_OUTAGE:
                self._down_until = time.monotonic() + OUTAGE_SECONDS[kind]
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
        self.usage.of(self._caller, call).received_bytes += len(data)
        self._note(call)
        self.answers.append((time.monotonic(), call, answer.status))
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
            assert isinstance(transport, asyncio.Transport)
            self._watches.add(transport)
            traffic = self.usage.of(self._caller, call)
            stream = Stream(self, call, traffic, upstream.content, answer, transport)
            try:
                with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                    await answer.prepare(request)
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
        if self.struck or fault is None or fault.kind not in ON_WATCH:
            return None
        if fault.plural != plural or fault.at != number:
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
