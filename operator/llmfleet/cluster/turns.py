"""Whose turn it is: a limited number together, and urgent ones before the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator


class Turns:
    """Turns of two kinds; while urgent ones are taken or waited for, few others are given.

    Args:
        together: turns at the same time.
        beside: ordinary turns at the same time while there are urgent ones, whose number this is
            added to; at least 1, so that a flood of urgent ones stops nobody.
    """

    def __init__(self, together: int, beside: int) -> None:
        self._together = together
        self._beside = beside
        self._taken = {True: 0, False: 0}
        self._waiting: dict[bool, deque[asyncio.Future[None]]] = {True: deque(), False: deque()}

    @contextlib.asynccontextmanager
    async def take(self, *, urgent: bool) -> AsyncIterator[None]:
        """Wait for a turn, and hold it for the time of an ``async with``."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[urgent].append(turn)
        self._give()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._taken[urgent] -= 1
            self._give()
            raise
        try:
            yield
        finally:
            self._taken[urgent] -= 1
            self._give()

    def _give(self) -> None:
        for urgent in (True, False):
            waiting = self._waiting[urgent]
            while waiting and self._may(urgent):
                turn = waiting.popleft()
                if not turn.cancelled():
                    self._taken[urgent] += 1
                    turn.set_result(None)

    def _may(self, urgent: bool) -> bool:
        room = sum(self._taken.values()) < self._together
        if urgent:
            return room
        pressing = self._taken[True] or any(not turn.done() for turn in self._waiting[True])
        return self._taken[False] < self._beside if pressing else room
