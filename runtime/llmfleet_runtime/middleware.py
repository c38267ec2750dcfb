"""The outermost layer of vLLM's HTTP server: who may ask, what, and how it is counted.

Plain ASGI, no vLLM import: loaded by ``--middleware`` in vLLM's API process.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmfleet_runtime.activity import Activity
from llmfleet_runtime.metrics import OTHER_MODEL, RequestMetrics
from llmfleet_runtime.refused import error_body
from llmfleet_runtime.settings import PluginSettings
from llmfleet_runtime.trusted import (
    FORWARDED_HEADERS,
    LOOPBACK_HEADER,
    OWN_REQUEST_ID,
    TOKEN_HEADER,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPERATIONS = {
    ("POST", "/v1/chat/completions"): "chat",
    ("POST", "/v1/completions"): "completion",
    ("POST", "/v1/embeddings"): "embedding",
    ("POST", "/v1/responses"): "responses",
    ("GET", "/v1/models"): "models",
}
"""All that routers may reach; vLLM has dozens more, administrative ones among them."""
LOOPBACK_PATHS = {("GET", "/health"), ("GET", "/metrics")}
SCOPE_KEY = "llmfleet.request"
_TOKEN_RECHECK_SECONDS = 5.0
_CLIENT_GONE = 499


@dataclass(slots=True)
class RequestInfo:
    """What the endpoint learns about a request and the middleware counts."""

    model: str = OTHER_MODEL


class EngineBrokeError(RuntimeError):
    """Ends a stream without its final chunk, so that the router counts a reset."""


class TokenCheck:
    """Compares with the token file, which is read again when it changes (Secrets rotate)."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._checked_at = 0.0
        self._token: bytes | None = None

    def allows(self, presented: bytes | None) -> bool:
        """Whether this token opens the engine; without a configured file everything does.

        A configured file that is missing or empty closes the engine rather than opening it.
        """
        if self._path is None:
            return True
        now = time.monotonic()
        if self._token is None or now - self._checked_at > _TOKEN_RECHECK_SECONDS:
            self._checked_at = now
            # Keep the last one when unreadable: a Secret volume swaps its link while it updates.
            with contextlib.suppress(OSError):
                self._token = self._path.read_bytes().strip() or self._token
        return (
            bool(self._token)
            and presented is not None
            and hmac.compare_digest(presented, self._token or b"")
        )


class EngineMiddleware:
    """Token check, path allow-list, header allow-list, counting; see the module's docstring."""

    def __init__(self, app: App, settings: PluginSettings | None = None) -> None:
        self._app = app
        self._settings = settings or PluginSettings.from_environment()
        self._token = TokenCheck(self._settings.token_file)
        self._loopback_key = self._settings.loopback_key.encode()
        self._activity = Activity(Path(self._settings.activity_file))
        self._metrics = RequestMetrics(self._settings.revision)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = dict(scope["headers"])
        ours = hmac.compare_digest(headers.get(LOOPBACK_HEADER.encode(), b""), self._loopback_key)
        if not ours and not self._token.allows(headers.get(TOKEN_HEADER.encode())):
            await _answer(send, 401, "The engine answers its routers only.", "invalid_api_key")
            return
        asked = (scope["method"], scope["path"])
        operation = OPERATIONS.get(asked)
        if operation is None and not (ours and asked in LOOPBACK_PATHS):
            await _answer(send, 404, "There is no such path.", "not_found")
            return
        scope["headers"] = [pair for pair in scope["headers"] if forwarded(pair, ours=ours)]
        if ours or operation is None or operation == "models":
            await self._app(scope, receive, send)
            return
        if self._activity.stopping:
            await _answer(send, 503, "This pod is stopping.", "stopping", retriable=True)
            return
        await self._serve(operation, scope, receive, send)

    async def _serve(self, operation: str, scope: Scope, receive: Receive, send: Send) -> None:
        info = RequestInfo()
        scope[SCOPE_KEY] = info
        answer = _Answer(send)
        begun = time.monotonic()
        self._activity.begin()
        try:
            await self._app(scope, receive, answer.send)
        except EngineBrokeError as error:
            # Returning with the answer incomplete makes the server close the connection.
            await answer.give_up(str(error))
        finally:
            self._activity.end()
            model = info.model if info.model in self._settings.served_names else OTHER_MODEL
            self._metrics.observe(
                model=model,
                operation=operation,
                status=answer.status if answer.complete or answer.broken else _CLIENT_GONE,
                seconds=time.monotonic() - begun,
            )


class _Answer:
    """Watches an answer go by: its status, its end, and errors inside a stream.

    Its status and headers, and what of a stream is no token, are kept back until there is one: vLLM
    sends them before, so whoever waits would take an engine that hangs for one that answers, and
    one that fails before its first token could not be told by its status.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: list[Message] | None = None
        """What is kept back, the start of the answer first; None: nothing."""
        self._unread = b""
        """The end of what is kept back, behind its last whole event."""
        self._stream = False
        self.status = 500
        self.complete = False
        self.broken = False

    async def send(self, message: Message) -> None:
        """Passes the message on; ends the stream where the engine failed.

        Raises:
            EngineBrokeError: the engine failed in mid-stream. vLLM would follow with ``[DONE]``
                and a proper end, which to a router looks like success.
        """
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            self._stream = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message["headers"]
            )
            self._held = [message]
            return
        if message["type"] != "http.response.body":
            if self._held is None:
                await self._send(message)
            else:
                self._held.append(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._held is not None and more and not await self._says_something(body):
            self._held.append(message)
            return
        if self._stream and is_engine_failure(body):
            await self._break(message)
        self.complete = not more
        await self._release()
        await self._send(message)

    async def give_up(self, reason: str) -> None:
        """The engine failed: answer 500 if nothing was sent yet, else leave the answer broken."""
        self.status = 500
        if self._held is not None:
            self._held, self.complete = None, True
            await _answer(self._send, 500, f"{reason}.", "engine_error")

    async def _says_something(self, body: bytes) -> bool:
        """Whether a token may have come, in an answer of which nothing has left yet.

        Raises:
            EngineBrokeError: a failure has come.
        """
        if not self._stream:
            return bool(body)
        *events, self._unread = re.split(rb"(?<=\n)\r?\n", self._unread + body)
        if any(map(is_engine_failure, events)):
            await self._break({})
        return not all(map(_is_preface, events))

    async def _break(self, message: Message) -> None:
        self.broken = True
        if self._held is None:
            await self._send({**message, "more_body": True})
        raise EngineBrokeError("the engine failed")

    async def _release(self) -> None:
        held, self._held = self._held or (), None
        for message in held:
            await self._send(message)


PREFACES = (b"response.created", b"response.in_progress", b"response.queued")
"""Events of ``/v1/responses`` that vLLM sends before it has asked its engine for anything."""


def _is_preface(event: bytes) -> bool:
    r"""Whether an event of a stream says nothing: comments, and what comes before any token.

    >>> _is_preface(b": ping\n"), _is_preface(b"event: response.created\ndata: {}\n")
    (True, True)
    >>> _is_preface(b"data: 1\n")
    False
    """
    lines = [line.strip() for line in event.splitlines()]
    said = [line for line in lines if line and not line.startswith(b":")]
    return not said or said[0].removeprefix(b"event:").strip() in PREFACES


def forwarded(header: tuple[bytes, bytes], *, ours: bool) -> bool:
    """Whether vLLM sees this request header; ids that mark our own requests are ours alone."""
    name, value = header
    if name == b"x-request-id" and value.startswith(OWN_REQUEST_ID.encode()):
        return ours
    return name in FORWARDED_HEADERS


def is_engine_failure(chunk: bytes) -> bool:
    r"""Whether an event of a stream is vLLM's report of a server-side error (code 500 and above).

    >>> is_engine_failure(b'data: {"error": {"message": "x", "code": 500}}\n\n')
    True
    >>> is_engine_failure(b'event: error\ndata: {"error": {"message": "x", "code": 500}}\n\n')
    True
    >>> is_engine_failure(b'data: {"error": {"message": "x", "code": 400}}\n\n')
    False
    """
    event = chunk.removeprefix(b"event: error\n")
    if b'"error"' not in event[:64] or not event.startswith(b"data: {"):
        return False
    try:
        error = json.loads(event[6:].split(b"\n", 1)[0]).get("error")
    except ValueError:
        return False
    code = error.get("code") if isinstance(error, dict) else None
    return isinstance(code, int) and code >= 500


async def _answer(
    send: Send, status: int, message: str, code: str, *, retriable: bool = False
) -> None:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = json.dumps(error_body(message, code=code, kind=kind)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if retriable:
        headers += [(b"x-envoy-ratelimited", b"true"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
