"""Sends hostile requests at a router and judges every answer."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.hostile.requests import SILENCE, Hostile, draw

ANSWER_SECONDS: Final = 20.0
SILENCE_SECONDS: Final = 0.3
"""How long is listened to a request that need not be answered."""
DOCUMENTED: Final = {
    400: "bad_request", 403: "upgrade_refused", 404: "path_not_found", 405: "method_not_allowed",
    408: "request_timeout", 413: "request_too_large", 415: "unsupported_media_type",
    426: "upgrade_required", 431: "headers_too_large", 501: "not_implemented",
}  # fmt: skip
"""Status → ``code`` of the error (docs/router.md)."""


@dataclass
class Outcome:
    """What came of an attack."""

    sent: int = 0
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By (kind of request, status); status 0 = no answer."""
    wrong: list[str] = field(default_factory=list)
    """Answers that are not documented, with what was sent."""


class AnswerError(Exception):
    """The answer is not what docs/router.md says."""


async def attack(
    port: int,
    count: int,
    seed: int,
    *,
    connections: int = 32,
    progress: Callable[[int], None] = lambda sent: None,
) -> Outcome:
    """Send ``count`` hostile requests over many connections to 127.0.0.1."""
    outcome, source = Outcome(), random.Random(seed)

    async def work() -> None:
        while outcome.sent < count:
            outcome.sent += 1
            hostile = draw(source)
            progress(outcome.sent)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    statuses = await _send(port, hostile)
                for status in statuses:
                    outcome.answers[hostile.kind, status] += 1
            except (AnswerError, TimeoutError, OSError, ValueError) as error:
                said = f"{hostile.kind}: {error!r} to {hostile.raw[:300]!r}"
                outcome.wrong.append(said)

    await asyncio.gather(*(work() for _ in range(connections)))
    return outcome


async def _send(port: int, hostile: Hostile) -> list[int]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(hostile.raw)
        if hostile.reset:
            await writer.drain()
            _abort(writer)
            return [SILENCE]
        statuses: list[int] = []
        last = False
        while len(statuses) < hostile.answers and not last:
            # Pipelined requests behind a refusal may stay unanswered; their client repeats them.
            status, last = await _answer(reader, hostile, silent=bool(statuses))
            statuses.append(status)
        return statuses
    finally:
        writer.close()


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of a farewell."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _answer(
    reader: asyncio.StreamReader, hostile: Hostile, *, silent: bool = False
) -> tuple[int, bool]:
    """The status, and whether it is the last answer on its connection."""
    silent = silent or SILENCE in hostile.allowed
    try:
        async with asyncio.timeout(SILENCE_SECONDS if silent else ANSWER_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
        if silent:
            return SILENCE, True
        raise AnswerError(f"no answer: {error!r}") from error
    if not head.startswith(b"HTTP/1.1 "):
        if silent:  # HTTP/2 frames to an HTTP/2 preface
            return SILENCE, True
        raise AnswerError(f"no HTTP: {head[:80]!r}")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)
    }
    status = int(status_line.split()[1])
    if status == 100:
        return await _answer(reader, hostile, silent=silent)
    body = await _body(reader, headers)
    if status not in hostile.allowed:
        raise AnswerError(f"{status} is not in {sorted(hostile.allowed)}: {body[:200]!r}")
    if status >= 400:
        _check_error(status, headers, body)
    return status, headers.get("connection") == "close"


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


def _check_error(status: int, headers: dict[str, str], body: bytes) -> None:
    if status not in DOCUMENTED:
        raise AnswerError(f"{status} is not documented")
    if headers.get("content-type") != "application/json":
        raise AnswerError(f"{status} with content-type {headers.get('content-type')}")
    error = json.loads(body)["error"]
    if set(error) != {"message", "type", "param", "code"} or error["code"] != DOCUMENTED[status]:
        raise AnswerError(f"{status} with {error}")
