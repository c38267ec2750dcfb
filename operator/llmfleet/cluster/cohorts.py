"""Adds up what routers booked, cohort by cohort, into what the judge looks at. No I/O, no clock.

A cohort is what routers sent within a few seconds under one trafficGeneration. Every outcome
belongs to the cohort its request was sent in, so two revisions are compared by requests of the same
time, however much slower one of them answers. A cohort is looked at twice, each time once and with
both revisions together: when nearly all of its requests have a first token or have failed, and when
what was cut off later is known. Where a router's counts are missing, they are missing for both
revisions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from llmfleet.planning.snapshot import Look, RequestCounts

SLOT_SECONDS: Final = 5.0
JUDGED: Final = frozenset({"split", "young", "preview"})
"""Classes of requests that are counted here. Those by header routes and copies are somebody's
trial, and at a preview port there is nothing else."""
FAILED: Final = ("connect", "reset", "error", "noFirstToken", "cut")
"""Outcomes that are the revision's own failures. An engine that is full (``refused``), a client's
mistake, and one that left too early say nothing of it."""
ENDED: Final = (
    *FAILED, "answered", "refused", "badRequest", "notFound", "tooLarge", "unprocessable",
    "otherClient", "unauthorized", "abandoned",
)  # fmt: skip
COUNTED: Final = ("sent", "first", *ENDED)
"""Columns of an answer that are used, in this order."""
GROUPS: Final = ((120.0, SLOT_SECONDS), (600.0, 15.0))
"""Until a trafficGeneration is so many seconds old, cohorts are so many seconds long."""
LONG_GROUP_SECONDS: Final = 60.0
LATE_ROUTER_SECONDS: Final = 15.0
"""A router that was not read for so long after a cohort's end is left out of it."""
DECIDED_SHARE: Final = 0.99
AFTER_TIMEOUT_SECONDS: Final = 5.0
LATE_SECONDS: Final = 600.0
"""A cohort's second look is taken at this age, unless all of its requests have ended before."""


class BookedRow(NamedTuple):
    """One row of a router's answer."""

    start: float
    """When its requests were sent, by our clock, in seconds since 1970: the slot's beginning."""
    generation: int
    revision: str
    kind: str
    """``split``, ``young``, ``header`` or ``preview``."""
    size: int
    counts: tuple[int, ...]
    """As in ``COUNTED``."""


@dataclass(frozen=True, slots=True)
class _Sum:
    """What one revision's requests in a cohort came to."""

    sent: int = 0
    waiting: int = 0
    """Without a first token, and not ended."""
    open: int = 0
    """Not ended."""
    failed: int = 0
    abandoned: int = 0

    def __add__(self, other: _Sum) -> _Sum:
        return _Sum(
            self.sent + other.sent,
            self.waiting + other.waiting,
            self.open + other.open,
            self.failed + other.failed,
            self.abandoned + other.abandoned,
        )


class _GroupKey(NamedTuple):
    start: float
    generation: int
    length: float

    @property
    def end(self) -> float:
        return self.start + self.length


@dataclass(slots=True)
class _Group:
    """A cohort that is still looked at, by router."""

    rows: dict[str, dict[tuple[str, float, str, int], tuple[int, ...]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """By router, then by revision, slot, class and size."""
    failed_before: dict[str, dict[str, int]] | None = None
    """Failures at the first look, by router and revision; None before it."""

    def sums(self, routers: Iterable[str] | None = None) -> dict[str, _Sum]:
        """By revision."""
        found: dict[str, _Sum] = defaultdict(_Sum)
        for router in self.rows if routers is None else routers:
            for (revision, *_), counts in self.rows[router].items():
                found[revision] += _sum(counts)
        return found


class Cohorts:
    """The requests of one attempt of a rollout.

    Args:
        since: when it began, in seconds since 1970; what was sent before is not counted.
        timeout_seconds: of the first token; a little later nothing is waited for any more.
    """

    def __init__(self, since: float, timeout_seconds: float) -> None:
        self.since = since
        self._timeout = timeout_seconds
        self._read_until: dict[str, float] = {}
        """By router that is there: what it booked before is known."""
        self._groups: dict[_GroupKey, _Group] = {}
        self._over: set[_GroupKey] = set()
        self._began: dict[int, float] = {}
        """When the first request of a trafficGeneration was sent."""
        self._settled: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        """Requests and failures of what is over, by revision."""
        self._looks: list[dict[str, Look]] = []
        self._late: list[dict[str, Look]] = []

    def take(self, router: str, rows: Iterable[BookedRow], until: float) -> None:
        """Take an answer of a router; its counts are absolute, so twice is as good as once.

        Args:
            router: uid of the pod.
            rows: what changed.
            until: our time at which it was asked, in seconds since 1970.
        """
        self._read_until[router] = max(until, self._read_until.get(router, 0.0))
        for row in rows:
            if row.start < self.since or row.kind not in JUDGED:
                continue
            key = self._group_of(row)
            if key in self._over:
                continue
            group = self._groups.setdefault(key, _Group())
            if group.failed_before is None or router in group.failed_before:
                cell = (row.revision, row.start, row.kind, row.size)
                group.rows[router][cell] = row.counts

    def expect(self, routers: Iterable[str]) -> None:
        """Wait for these routers' counts, too, and no longer for others: they are gone."""
        wanted = set(routers)
        for router in self._read_until.keys() - wanted:
            del self._read_until[router]
            for group in self._groups.values():
                group.rows.pop(router, None)
                if group.failed_before is not None:
                    group.failed_before.pop(router, None)

    def look(self, now: float) -> None:
        """Look at the cohorts that it is time for.

        Args:
            now: seconds since 1970.
        """
        for key in sorted(self._groups):
            group = self._groups[key]
            if group.failed_before is None:
                self._first_look(key, group, now)
            if group.failed_before is not None:
                self._late_look(key, group, now)

    def counts(self, as_of: datetime) -> dict[str, RequestCounts]:
        """By revision; one that was sent nothing is absent."""
        totals = {revision: tuple(known) for revision, known in self._settled.items()}
        for group in self._groups.values():
            for revision, now in group.sums().items():
                requests, failed = totals.get(revision, (0, 0))
                totals[revision] = (requests + now.sent, failed + now.failed)
        return {
            revision: RequestCounts(
                total=requests,
                failed=failed,
                as_of=as_of,
                looks=tuple(look.get(revision, (0, 0)) for look in self._looks),
                late_looks=tuple(look.get(revision, (0, 0)) for look in self._late),
            )
            for revision, (requests, failed) in sorted(totals.items())
        }

    def _group_of(self, row: BookedRow) -> _GroupKey:
        began = self._began.setdefault(row.generation, row.start)
        age = row.start - began
        length = next((length for until, length in GROUPS if age < until), LONG_GROUP_SECONDS)
        start = began + age // length * length
        return _GroupKey(start, row.generation, length)

    def _first_look(self, key: _GroupKey, group: _Group, now: float) -> None:
        late = {router for router, until in self._read_until.items() if until < key.end}
        if now < key.end or (late and now < key.end + LATE_ROUTER_SECONDS):
            return
        for router in late:
            group.rows.pop(router, None)
        sums = group.sums()
        sent = sum(each.sent for each in sums.values())
        waiting = sum(each.waiting for each in sums.values())
        timed_out = now >= key.end + self._timeout + AFTER_TIMEOUT_SECONDS
        if waiting > (1.0 - DECIDED_SHARE) * sent and not timed_out:
            return
        group.failed_before = {
            router: {revision: each.failed for revision, each in group.sums([router]).items()}
            for router in list(group.rows)
        }
        self._note(
            self._looks,
            {
                revision: (each.sent - each.waiting - each.abandoned, each.failed)
                for revision, each in sums.items()
            },
        )

    def _late_look(self, key: _GroupKey, group: _Group, now: float) -> None:
        before = group.failed_before or {}
        sums = group.sums(before)
        if any(each.open for each in sums.values()) and now < key.end + LATE_SECONDS:
            return
        failed: dict[str, int] = defaultdict(int)
        for known in before.values():
            for revision, count in known.items():
                failed[revision] += count
        self._note(
            self._late,
            {
                revision: (
                    each.sent - each.open - each.abandoned - failed[revision],
                    each.failed - failed[revision],
                )
                for revision, each in sums.items()
            },
        )
        for revision, each in sums.items():
            self._settled[revision][0] += each.sent
            self._settled[revision][1] += each.failed
        del self._groups[key]
        self._over.add(key)

    @staticmethod
    def _note(looks: list[dict[str, Look]], found: Mapping[str, Look]) -> None:
        some = {revision: (max(0, n), max(0, a)) for revision, (n, a) in found.items() if n > 0}
        if some:
            looks.append(some)


def _sum(counts: tuple[int, ...]) -> _Sum:
    known = dict(zip(COUNTED, counts, strict=True))
    ended = sum(known[name] for name in ENDED)
    # Of those that ended, only what was answered and what was cut off had a first token.
    without_first = ended - known["answered"] - known["cut"]
    return _Sum(
        sent=known["sent"],
        waiting=max(0, known["sent"] - known["first"] - without_first),
        open=max(0, known["sent"] - ended),
        failed=sum(known[name] for name in FAILED),
        abandoned=known["abandoned"],
    )
