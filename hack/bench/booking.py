"""Routers that book requests in simulated time, as the module in Envoy does."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from llmfleet.cluster.cohorts import COUNTED, SLOT_SECONDS, BookedRow

_COLUMN = {name: at for at, name in enumerate(COUNTED)}
_Cell = tuple[float, int, str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request that a router sends to a revision.

    Attributes:
        at: when, in seconds since 1970.
        revision: hash.
        outcome: what becomes of it, one of ``cohorts.ENDED``.
        ends_after: seconds until that.
        first_after: seconds until its first token; None: none comes.
    """

    at: float
    revision: str
    outcome: str = "answered"
    ends_after: float = 1.0
    first_after: float | None = 0.5
    generation: int = 1
    kind: str = "split"
    size: int = 0


@dataclass(slots=True)
class Books:
    """What one router has booked; time only goes forward."""

    uid: str
    _due: list[tuple[float, int, _Cell, str]] = field(default_factory=list)
    _cells: dict[_Cell, list[int]] = field(default_factory=dict)
    _order: itertools.count[int] = field(default_factory=itertools.count)

    def send(self, requests: Iterable[Sent]) -> None:
        """Requests that are sent now or later."""
        for one in requests:
            slot = one.at // SLOT_SECONDS * SLOT_SECONDS
            cell = (slot, one.generation, one.revision, one.kind, one.size)
            self._push(one.at, cell, "sent")
            if one.first_after is not None:
                self._push(one.at + one.first_after, cell, "first")
            self._push(one.at + one.ends_after, cell, one.outcome)

    @property
    def is_done(self) -> bool:
        """Whether it has been read to its end."""
        return not self._due

    def forget(self) -> None:
        """Envoy starts anew: what was booked is lost, and what was under way is cut."""
        self._due.clear()
        self._cells.clear()

    def read(self, now: float, *, everything: bool = False) -> list[BookedRow]:
        """Rows that changed since they were read last, or all."""
        changed = set(self._cells) if everything else set()
        while self._due and self._due[0][0] <= now:
            _, _, cell, column = heapq.heappop(self._due)
            self._cells.setdefault(cell, [0] * len(COUNTED))[_COLUMN[column]] += 1
            changed.add(cell)
        return [BookedRow(*cell, tuple(self._cells[cell])) for cell in sorted(changed)]

    def _push(self, at: float, cell: _Cell, column: str) -> None:
        heapq.heappush(self._due, (at, next(self._order), cell, column))
