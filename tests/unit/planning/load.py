"""Requests of the modelled clients, as whoever counts them tells the operator."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from llmfleet.planning.snapshot import Look, RequestCounts

Kind = Literal["healthy", "failing", "broken", "idle", "unknown"]
SHARES: Mapping[str, int] = {"healthy": 0, "failing": 30, "broken": 100}
"""Percent of the requests of bad revisions that fail."""
REQUESTS = 400
"""In a turn, of all revisions together."""
MOST_LOOKS = 40


@dataclass
class Load:
    """Clients of one fleet, and a counter of their requests by revision.

    Attributes:
        kind: how many requests come, and whether those of ``bad`` fail; unknown = not counted.
        bad: hashes whose requests fail.
        attempt: number of the attempt that is counted; another one is counted from zero.
        looks: by revision, the same intervals of each.
        stopped_at: since when nothing has been counted any more; None = it is.
    """

    kind: Kind = "unknown"
    bad: frozenset[str] = frozenset()
    attempt: int | None = None
    looks: dict[str, list[Look]] = field(default_factory=lambda: defaultdict(list))
    stopped_at: datetime | None = None

    def turn(self, split: Mapping[str, int], attempt: int | None) -> None:
        """Count one interval.

        Args:
            split: what routers serve, percent by revision.
            attempt: number of the one under way.
        """
        if attempt != self.attempt:
            self.reset()
            self.attempt = attempt
        if self.stopped_at is not None or self.kind == "unknown":
            return
        for name in {*self.looks, *split}:
            self.looks[name] += [(0, 0)] * (len(self) - len(self.looks[name]))
        for name in self.looks:
            total = 0 if self.kind == "idle" else REQUESTS * split.get(name, 0) // 100
            failed = total * SHARES.get(self.kind, 0) // 100 if name in self.bad else 0
            self.looks[name] = [*self.looks[name], (total, failed)][-MOST_LOOKS:]

    def reset(self) -> None:
        """The counter begins anew, as after its restart."""
        self.looks.clear()

    def counts(self) -> dict[str, RequestCounts] | None:
        """By revision; None = nobody can tell."""
        if self.kind == "unknown":
            return None
        return {
            name: RequestCounts(
                total=sum(total for total, _ in looks),
                failed=sum(failed for _, failed in looks),
                looks=tuple(looks[:-1]),
            )
            for name, looks in self.looks.items()
        }

    def __len__(self) -> int:
        return max((len(looks) for looks in self.looks.values()), default=0)
