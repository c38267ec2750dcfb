"""Own list/watch of one collection: chunked list, then a watch with bookmarks.

A list replaces the whole store, so deletions during an outage are seen. A broken stream goes on
from the last resourceVersion; only ``Expired`` lists again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

from llmfleet.cluster import metrics
from llmfleet.cluster.backoff import Backoff
from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.errors import ApiError, Expired, Forbidden, OutOfOrder
from llmfleet.cluster.store import Listing, version_number
from llmfleet.planning.snapshot import JSON

LIST_CHUNK: Final = 200
LIST_AGAIN_AFTER_FAILURES: Final = 4
"""A watch that cannot be resumed (etcd restored, history gone) is not resumed for ever."""
SERVER_TIMEOUT_SECONDS: Final = (300, 600)
REOPEN_SECONDS: Final = (1.0, 1.5)
"""From the opening of one watch to that of the next, at least; where in between is drawn."""
AFTER_REFUSAL_SECONDS: Final = 1
"""A watch that is let in again says nothing until something happens, so the first one is short."""

log: Any = structlog.get_logger(__name__)


class Sink(Protocol):
    """Where a reflector puts what it sees."""

    def begin_list(self, list_version: str | None, /) -> Listing:
        """Begin to take a complete list."""

    def put(self, body: JSON, /) -> None:
        """Take an added or modified object."""

    def remove(self, body: JSON, /) -> None:
        """Forget a deleted object."""


class Reflector:
    """Keeps a sink equal to a collection of the API server until cancelled.

    Lists wait for ``listing``: parsed, a collection is many times as large as what is kept of it.
    """

    def __init__(
        self,
        api: ApiClient,
        name: str,
        path: str,
        sink: Sink,
        *,
        selectors: dict[str, str],
        on_synced: Callable[[], None] = lambda: None,
        listing: asyncio.Semaphore | None = None,
    ) -> None:
        self._api = api
        self._listing = listing or asyncio.Semaphore()
        self._name = name
        self._path = path
        self._sink = sink
        self._selectors = selectors
        self._on_synced = on_synced
        self._version: str | None = None
        self._opened: float | None = None
        """When the last watch was, by the monotonic clock."""
        self.synced = asyncio.Event()
        self.refusal: str | None = None
        """The API server's sentence while it does not let us list or watch."""

    async def run(self) -> None:
        """List and watch for ever; every failure is logged, counted and tried again."""
        backoff = Backoff(first_seconds=0.5, longest_seconds=30)
        while True:
            try:
                if self._version is None:
                    async with self._listing:
                        self._version = await self._list()
                    backoff.reset()
                await self._turn()
                await self._watch(self._version, backoff)
            except Expired as error:
                metrics.WATCH_RESTARTS.labels(self._name, type(error).__name__.lower()).inc()
                self._version = None
            except ApiError as error:
                metrics.WATCH_RESTARTS.labels(self._name, type(error).__name__).inc()
                self.refusal = str(error) if isinstance(error, Forbidden) else None
                if backoff.failures >= LIST_AGAIN_AFTER_FAILURES:
                    self._version = None
                delay = error.retry_after_seconds or backoff.next_seconds(random.random())  # noqa: S311 - jitter
                log.warning("watch interrupted", kind=self._name, error=str(error), again_in=delay)
                await asyncio.sleep(delay)

    async def _list(self) -> str:
        query = {**self._selectors, "limit": str(LIST_CHUNK)}
        listing: Listing | None = None
        while True:
            page = await self._api.get(self._path, query)
            common = {"apiVersion": page["apiVersion"], "kind": page["kind"].removesuffix("List")}
            version: str = page["metadata"]["resourceVersion"]
            listing = listing or self._sink.begin_list(version)
            for item in page.get("items") or []:
                listing.take({**common, **item})
            token = page["metadata"].get("continue")
            if not token:
                break
            query["continue"] = token
        listing.end()
        self.refusal = None
        self.synced.set()
        self._on_synced()
        return version

    async def _turn(self) -> None:
        """Wait until another watch may be opened, however the last one ended.

        One that a proxy ends at once, or that is always too old, would be asked for without pause.
        """
        if self._opened is not None:
            due = self._opened + random.uniform(*REOPEN_SECONDS)  # noqa: S311 - jitter
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        self._opened = time.monotonic()

    async def _watch(self, version: str, backoff: Backoff) -> None:
        """Follow the stream to its end, keeping the resourceVersion reached."""
        seconds = random.randint(*SERVER_TIMEOUT_SECONDS)  # noqa: S311 - spread, not secrecy
        if self.refusal is not None:
            seconds = AFTER_REFUSAL_SECONDS
        query = {
            **self._selectors,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        async for event in self._api.watch(self._path, query):
            body = event["object"]
            at = version_number(body["metadata"]["resourceVersion"])
            if at < version_number(self._version):
                # The API server tells in order. Something between swapped two events, and an old
                # one after a deletion would bring the object back to life.
                raise OutOfOrder(f"the watch went back from {self._version} to {at}", status=0)
            match event["type"]:
                case "ADDED" | "MODIFIED":
                    self._sink.put(body)
                case "DELETED":
                    self._sink.remove(body)
            self._version = body["metadata"]["resourceVersion"]
            self.refusal = None
            backoff.reset()
        self.refusal = None
