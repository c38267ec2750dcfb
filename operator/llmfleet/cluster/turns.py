"""Whose turn it is: a limited number together, and urgent ones before the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from enum import IntEnum


class Haste(IntEnum):
    """How much others have to wait for it; the smaller the sooner."""

    URGENT = 0
    ORDINARY = 1
    LATER = 2


class Turns:
    """Turns of three kinds; while urgent ones are about, few others are given.

    Args:
        together: turns at the same time.
        beside: by haste, turns at the same time while urgent ones are about, whose number they are
            added to; at least 1, so that a flood of urgent ones stops nobody.
        calm_seconds: urgent ones are about for so long after the last ended: they come in bursts,
            and many others, once given a turn, have it for seconds.
    """

    def __init__(
        self, together: int, beside: Mapping[Haste, int], calm_seconds: float = 0.0
    ) -> None:
        self._together = together
        self._beside = beside
        self._calm_seconds = calm_seconds
        self._calm: asyncio.TimerHandle | None = None
        """Runs while urgent ones, though ended, still count."""
        self._taken: Counter[Haste] = Counter()
        self._waiting: dict[Haste, deque[asyncio.Future[None]]] = {each: deque() for each in Haste}

    @contextlib.asynccontextmanager
    async def take(self, haste: Haste) -> AsyncIterator[None]:
        """Wait for a turn, and hold it for the time of an ``async with``."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[haste].append(turn)
        self._give()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._taken[haste] -= 1
            self._give()
            raise
        try:
            yield
        finally:
            self._taken[haste] -= 1
            if haste is Haste.URGENT:
                self._wait_for_calm()
            self._give()

    def _wait_for_calm(self) -> None:
        if self._calm is not None:
            self._calm.cancel()
        loop = asyncio.get_running_loop()
        self._calm = loop.call_later(self._calm_seconds, self._become_calm)

    def _become_calm(self) -> None:
        self._calm = None
        self._give()

    def _give(self) -> None:
        for haste in Haste:
            waiting = self._waiting[haste]
            while waiting and self._may(haste):
                turn = waiting.popleft()
                if not turn.cancelled():
                    self._taken[haste] += 1
                    turn.set_result(None)

    def _may(self, haste: Haste) -> bool:
        room = self._taken.total() < self._together
        if haste is Haste.URGENT:
            return room
        urgent = self._waiting[Haste.URGENT]
        pressing = (
            self._taken[Haste.URGENT]
            or any(not turn.done() for turn in urgent)
            or self._calm is not None
        )
        return self._taken[haste] < self._beside[haste] if pressing else room
