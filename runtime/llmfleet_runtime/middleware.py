"""The outermost layer of vLLM's HTTP server: who may ask, what, and how it is counted.

Plain ASGI, no vLLM import: loaded by ``--middleware`` in vLLM's API process.
"""

from __future__ import annotations

import contextlib
import hmac
import json
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

    Its status and headers are kept back until the first byte of its body. vLLM sends a stream's
    before there is any token, so whoever waits would take an engine that hangs for one that
    answers, and one that fails before its first token could not be told by its status.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        """Kept back."""
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
            self._start = message
            return
        if message["type"] == "http.response.body":
            body, more = message.get("body", b""), message.get("more_body", False)
            if self._stream and is_engine_failure(body):
                self.broken = True
                if self._start is None:
                    await self._send({**message, "more_body": True})
                raise EngineBrokeError("the engine failed")
            if self._start is not None and more and (not body or _is_comment(body)):
                return
            self.complete = not more
        await self._release()
        await self._send(message)

    async def give_up(self, reason: str) -> None:
        """The engine failed: answer 500 if nothing was sent yet, else leave the answer broken."""
        self.status = 500
        if self._start is not None:
            self._start, self.complete = None, True
            await _answer(self._send, 500, f"{reason}.", "engine_error")

    async def _release(self) -> None:
        start, self._start = self._start, None
        if start is not None:
            await self._send(start)


def _is_comment(chunk: bytes) -> bool:
    r"""Whether a piece of an SSE stream is nothing but comments (HTML standard, 9.2.6).

    >>> _is_comment(b": ping\n\n"), _is_comment(b"data: 1\n\n")
    (True, False)
    """
    lines = [line for line in chunk.split(b"\n") if line.strip()]
    return bool(lines) and all(line.startswith(b":") for line in lines)


def forwarded(header: tuple[bytes, bytes], *, ours: bool) -> bool:
    """Whether vLLM sees this request header; ids that mark our own requests are ours alone."""
    name, value = header
    if name == b"x-request-id" and value.startswith(OWN_REQUEST_ID.encode()):
        return ours
    return name in FORWARDED_HEADERS


def is_engine_failure(chunk: bytes) -> bool:
    r"""Whether an SSE chunk is vLLM's report of a server-side error (code 500 and above).

    >>> is_engine_failure(b'data: {"error": {"message": "x", "code": 500}}\n\n')
    True
    >>> is_engine_failure(b'data: {"error": {"message": "x", "code": 400}}\n\n')
    False
    """
    if b'"error"' not in chunk[:64] or not chunk.startswith(b"data: {"):
        return False
    try:
        error = json.loads(chunk[6:].split(b"\n", 1)[0]).get("error")
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
