"""A semaphore that serves by priority: a limited number at once, high priorities first."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from enum import IntEnum


class Priority(IntEnum):
    """Who goes first; the smaller the sooner."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class PrioritySemaphore:
    """Permits of three priorities; while high ones are about, few others are given.

    Args:
        limit: permits at the same time.
        beside_high: by priority, permits at the same time while high ones are about, whose number
            they are added to; at least 1, so that a flood of high ones stops nobody.
        linger_seconds: high ones are about for so long after the last ended: they come in bursts,
            and many others, once given a permit, have it for seconds.
    """

    def __init__(
        self, limit: int, beside_high: Mapping[Priority, int], linger_seconds: float = 0.0
    ) -> None:
        self._limit = limit
        self._beside_high = beside_high
        self._linger_seconds = linger_seconds
        self._lingering: asyncio.TimerHandle | None = None
        """Runs while high ones, though ended, still count."""
        self._held: Counter[Priority] = Counter()
        self._waiting: dict[Priority, deque[asyncio.Future[None]]] = {
            each: deque() for each in Priority
        }

    @contextlib.asynccontextmanager
    async def acquire(self, priority: Priority) -> AsyncIterator[None]:
        """Wait for a permit, and hold it for the time of an ``async with``."""
        permit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[priority].append(permit)
        self._grant()
        try:
            await permit
        except asyncio.CancelledError:
            if permit.done() and not permit.cancelled():
                self._held[priority] -= 1
            self._grant()
            raise
        try:
            yield
        finally:
            self._held[priority] -= 1
            if priority is Priority.HIGH:
                self._linger()
            self._grant()

    def _linger(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        loop = asyncio.get_running_loop()
        self._lingering = loop.call_later(self._linger_seconds, self._end_lingering)

    def _end_lingering(self) -> None:
        self._lingering = None
        self._grant()

    def _grant(self) -> None:
        for priority in Priority:
            waiting = self._waiting[priority]
            while waiting and self._is_free(priority):
                permit = waiting.popleft()
                if not permit.cancelled():
                    self._held[priority] += 1
                    permit.set_result(None)

    def _is_free(self, priority: Priority) -> bool:
        below_limit = self._held.total() < self._limit
        if priority is Priority.HIGH:
            return below_limit
        high_about = (
            self._held[Priority.HIGH]
            or any(not permit.done() for permit in self._waiting[Priority.HIGH])
            or self._lingering is not None
        )
        return self._held[priority] < self._beside_high[priority] if high_about else below_limit
