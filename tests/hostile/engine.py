"""An engine that answers 200 to anything and judges what reached it.

Its own few lines of HTTP on purpose: what a server library refuses (a long header, a doubled
``expect``) would be taken for an answer of the router.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hack.processes.agent import TOKEN

from tests.hostile.requests import API_PATHS, LIMIT

ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
PAIRS: Final = frozenset({*(("POST", path) for path in API_PATHS), ("GET", "/v1/models")})
FORGEABLE: Final = frozenset({"x-llmfleet-tenant", "x-llmfleet-priority", "x-llmfleet-max-tokens"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request as the engine got it."""

    method: str
    path: str
    headers: Mapping[str, list[str]]
    """Values by lower-case name, in the order sent."""
    body_bytes: int

    def trouble(self) -> str | None:
        """Why it should not have come like this; None when it is as it should be.

        Whatever a client sends, an engine sees only the public paths, the router's own token, no
        header that only the router may set, and no body above the limit.
        """
        names = set(self.headers)
        found = {
            f"{self.method} {self.path}": (self.method, self.path.split("?")[0]) not in PAIRS,
            "another token": self.headers.get("x-llmfleet-token") != [TOKEN],
            f"headers {sorted(FORGEABLE & names)}": not FORGEABLE.isdisjoint(names),
            "the client's request id": "chosen" in self.headers.get("x-request-id", []),
            "a header with an underscore": any("_" in name for name in names),
            "two framings": {"transfer-encoding", "content-length"} <= names,
            f"{self.body_bytes} bytes of body": self.body_bytes > LIMIT,
        }
        return next((trouble for trouble, holds in found.items() if holds), None)


class WatchedEngine:
    """Listens on a port of loopback.

    Attributes:
        port: where it listens, once started.
        count: requests so far.
        troubles: what was wrong with some of them.
    """

    def __init__(self) -> None:
        self.port = 0
        self.count = 0
        self.troubles: list[str] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and the connections."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                seen = await _read(reader)
                self.count += 1
                if trouble := seen.trouble():
                    self.troubles.append(trouble)
                writer.write(ANSWER)
                await writer.drain()
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head.split("\r\n")
    method, path, _ = line.split(" ", 2)
    headers: dict[str, list[str]] = {}
    for each in filter(None, rest):
        name, _, value = each.partition(":")
        headers.setdefault(name.lower(), []).append(value.strip())
    size = int(headers.get("content-length", ["0"])[0])
    if "transfer-encoding" in headers:
        size = 0
        while chunk := int(await reader.readline(), 16):
            await reader.readexactly(chunk + 2)
            size += chunk
        while (await reader.readline()).strip():
            pass
    else:
        await reader.readexactly(size)
    return Seen(method=method, path=path, headers=headers, body_bytes=size)
