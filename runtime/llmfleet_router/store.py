"""What is desired, as the source last said it, with a wake-up for those who act on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from llmfleet_router.model import Command, Desired, Endpoints


class Store:
    """Holds the newest ``Desired``; whoever waits is woken by a change, never by a repetition.

    A command is held back until endpoints were heard of once: else a starting router would confirm
    it, and become ready, with nothing behind it.

    Args:
        initial: what is served already, when the agent starts beside an Envoy that serves. Until
            something else is heard, that is what is desired.
    """

    def __init__(self, initial: Desired | None = None) -> None:
        self._desired = initial or Desired()
        self._endpoints_known = False
        self._held_back: Command | None = None
        self._changed = asyncio.Event()

    @property
    def desired(self) -> Desired:
        """The newest wish."""
        return self._desired

    def set_command(self, command: Command) -> None:
        """Takes a new traffic command; there is no way to take one back."""
        if not self._endpoints_known:
            self._held_back = command
            return
        self._replace(Desired(command=command, endpoints=self._desired.endpoints))

    def set_endpoints(self, endpoints: Mapping[str, Endpoints]) -> None:
        """Replaces the ready endpoints of all revisions; the newly ready ones get the time."""
        filled = {r: self._dated(r, e) for r, e in sorted(endpoints.items()) if e}
        command = self._held_back or self._desired.command
        self._endpoints_known, self._held_back = True, None
        self._replace(Desired(command=command, endpoints=filled))

    def _dated(self, revision: str, endpoints: Endpoints) -> Endpoints:
        known = {(e.address, e.port): e for e in self._desired.endpoints.get(revision, ())}
        # Those of the first list were ready before we looked, unless somebody looked before us.
        looked = self._endpoints_known or self._desired.command is not None
        since = round(time.time()) if looked else 0
        dated = {
            known.get((e.address, e.port)) or replace(e, ready_since=e.ready_since or since)
            for e in endpoints
        }
        return tuple(sorted(dated))

    async def wait(self, timeout_seconds: float | None) -> None:
        """Returns at a change since the last return, at the latest after the timeout."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_seconds)
        except TimeoutError:
            return
        self._changed.clear()

    def wake(self) -> None:
        """Wakes who waits, though nothing else is desired."""
        self._changed.set()

    def _replace(self, desired: Desired) -> None:
        if desired != self._desired:
            self._desired = desired
            self._changed.set()


class Source(Protocol):
    """Where commands and endpoints come from."""

    async def run(self, store: Store) -> None:
        """Feeds the store until cancelled; survives every failure of the other side."""
