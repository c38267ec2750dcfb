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
from typing import Final, NamedTuple

from llmfleet.cluster.hanging import Hanging
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
_SENT, _FIRST = 0, 1
_ANSWERS: Final = tuple(
    at for at, name in enumerate(COUNTED) if name in ENDED and name not in {*FAILED, "abandoned"}
)
"""Columns of answers of any kind: a refusal is one, and so is that a client asked for nonsense."""
GROUPS: Final = ((120.0, SLOT_SECONDS), (600.0, 15.0))
"""Until a trafficGeneration is so many seconds old, cohorts are so many seconds long."""
LONG_GROUP_SECONDS: Final = 60.0
LATE_ROUTER_SECONDS: Final = 15.0
"""A router that was not read for so long after a cohort's end, or since it came, is left out."""
SKEW_SECONDS: Final = SLOT_SECONDS
"""Slots of routers' clocks are not exactly ours: so long after its end a cohort may still grow."""
DECIDED_SHARE: Final = 0.99
AFTER_TIMEOUT_SECONDS: Final = 5.0
LATE_SECONDS: Final = 600.0
"""A cohort's second look is taken at this age, unless all of its requests have ended before."""
MOST_GROUPS: Final = 2000
"""Cohorts that are still looked at: nearly three hours of them, split anew all the time."""
MOST_ROWS: Final = 100_000
"""Rows that are still looked at, of all routers of an object; one's whole table has 32,000."""


class TooManyRowsError(ValueError):
    """A router says more than any router can have to say."""


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
    unreached: int = 0
    """Of the failed ones, those that no pod could be connected to for."""

    def __add__(self, other: _Sum) -> _Sum:
        return _Sum(
            self.sent + other.sent,
            self.waiting + other.waiting,
            self.open + other.open,
            self.failed + other.failed,
            self.unreached + other.unreached,
        )

    def ended(self) -> _Ended:
        """What of it goes into totals."""
        return _Ended(self.sent, self.failed, self.unreached)


class _Ended(NamedTuple):
    """A revision's requests since the attempt began."""

    sent: int = 0
    failed: int = 0
    unreached: int = 0

    def plus(self, other: _Ended) -> _Ended:
        """Both together."""
        return _Ended(*(a + b for a, b in zip(self, other, strict=True)))


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
    left: set[str] = field(default_factory=set)
    """Routers that are gone, whose rows say all that there is to say."""
    failed_before: dict[str, dict[str, int]] | None = None
    """Failures at the first look, by router and revision; None before it."""

    def sums(self, routers: Iterable[str] | None = None) -> dict[str, _Sum]:
        """By revision."""
        found: dict[str, _Sum] = defaultdict(_Sum)
        for router in self.rows if routers is None else routers:
            for (revision, *_), counts in self.rows[router].items():
                found[revision] += _sum(counts)
        return found

    def answers(self) -> dict[tuple[str, float], tuple[int, int]]:
        """By revision and slot, how many were sent and how many got an answer of any kind."""
        found: dict[tuple[str, float], tuple[int, int]] = {}
        for cells in self.rows.values():
            for (revision, at, *_), counts in cells.items():
                sent, answered = found.get((revision, at), (0, 0))
                answers = counts[_FIRST] + sum(counts[which] for which in _ANSWERS)
                found[revision, at] = (sent + counts[_SENT], answered + answers)
        return found


class Cohorts:
    """The requests of one attempt of a rollout.

    Args:
        since: when it began, in seconds since 1970; what was sent before is not counted.
        timeout_seconds: of the first token; a little later nothing is waited for any more.
        revisions: that are judged; others' requests are not counted. None: all.
    """

    def __init__(
        self, since: float, timeout_seconds: float, revisions: frozenset[str] | None = None
    ) -> None:
        self.since = since
        self._timeout = timeout_seconds
        self._revisions = revisions
        self._read_until: dict[str, float] = {}
        """By router that is there: what it booked before is known."""
        self._expected_since: dict[str, float] = {}
        self._hanging = Hanging(timeout_seconds)
        self._looked_at = since
        self._rows = 0
        """In all groups."""
        self._groups: dict[_GroupKey, _Group] = {}
        self._over: set[_GroupKey] = set()
        self._began: dict[int, float] = {}
        """When the first request of a trafficGeneration was sent."""
        self._settled: dict[str, _Ended] = defaultdict(_Ended)
        """What is over, by revision."""
        self._looks: list[dict[str, Look]] = []
        self._late: list[dict[str, Look]] = []

    def take(self, router: str, rows: Iterable[BookedRow], until: float) -> None:
        """Take an answer of a router; its counts are absolute, so twice is as good as once.

        Args:
            router: one start of one router's Envoy.
            rows: what changed.
            until: our time at which it was asked, in seconds since 1970; 0 while there is more.

        Raises:
            TooManyRowsError: more is said than any router can have to say.
        """
        self._read_until[router] = max(until, self._read_until.get(router, 0.0))
        for row in rows:
            if row.start < self.since or row.kind not in JUDGED:
                continue
            if self._revisions is not None and row.revision not in self._revisions:
                continue
            key = self._group_of(row)
            if key in self._over:
                continue
            if key not in self._groups and len(self._groups) >= MOST_GROUPS:
                raise TooManyRowsError(f"more than {MOST_GROUPS} cohorts at once")
            group = self._groups.setdefault(key, _Group())
            if group.failed_before is None or router in group.failed_before:
                cell = (row.revision, row.start, row.kind, row.size)
                cells = group.rows[router]
                if cell not in cells:
                    if self._rows >= MOST_ROWS:
                        raise TooManyRowsError(f"more than {MOST_ROWS} rows at once")
                    self._rows += 1
                cells[cell] = row.counts

    def expect(self, routers: Iterable[str], now: float = 0.0) -> None:
        """Wait for these routers' counts, too, and no longer for others: they are gone.

        Args:
            routers: as ``take`` calls them.
            now: seconds since 1970.
        """
        wanted = set(routers)
        for router in wanted - self._read_until.keys():
            self._read_until[router] = 0.0
            self._expected_since[router] = now
        for router in self._read_until.keys() - wanted:
            del self._read_until[router]
            self._expected_since.pop(router, None)
            for group in self._groups.values():
                self._leave(router, group)

    def _leave(self, router: str, group: _Group) -> None:
        """Look on at what a router that is gone said of a cohort if that was all; else at none."""
        if router not in group.rows or router in group.left:
            return
        if any(each.open for each in group.sums([router]).values()):
            self._drop(router, group)
        else:
            group.left.add(router)

    def _drop(self, router: str, group: _Group) -> None:
        """No look sees its rows; they stay in the totals, which steps take to rise only."""
        self._settle(group.sums([router]))
        self._rows -= len(group.rows.pop(router, ()))
        if group.failed_before is not None:
            group.failed_before.pop(router, None)

    def look(self, now: float) -> None:
        """Look at the cohorts that it is time for.

        Args:
            now: seconds since 1970.
        """
        self._looked_at = now
        for key in sorted(self._groups):
            group = self._groups[key]
            for (revision, at), (sent, answered) in group.answers().items():
                self._hanging.note(revision, at, sent, answered)
            if group.failed_before is None:
                self._first_look(key, group, now)
            if group.failed_before is not None:
                self._late_look(key, group, now)

    def counts(self) -> dict[str, RequestCounts]:
        """By revision; one that was sent nothing is absent."""
        hanging = self._hanging.requests(self._looked_at)
        totals = dict(self._settled)
        for group in self._groups.values():
            for revision, now in group.sums().items():
                totals[revision] = totals.get(revision, _Ended()).plus(now.ended())
        return {
            revision: RequestCounts(
                total=each.sent,
                failed=min(each.failed, each.sent),
                unreached=min(each.unreached, each.sent),
                hanging=hanging.get(revision, 0),
                looks=tuple(look.get(revision, (0, 0)) for look in self._looks),
                late_looks=tuple(look.get(revision, (0, 0)) for look in self._late),
            )
            for revision, each in sorted(totals.items())
        }

    def _settle(self, sums: Mapping[str, _Sum]) -> None:
        for revision, each in sums.items():
            self._settled[revision] = self._settled[revision].plus(each.ended())

    def _group_of(self, row: BookedRow) -> _GroupKey:
        began = self._began.setdefault(row.generation, row.start)
        age = row.start - began
        length = next((length for until, length in GROUPS if age < until), LONG_GROUP_SECONDS)
        start = began + age // length * length
        return _GroupKey(start, row.generation, length)

    def _first_look(self, key: _GroupKey, group: _Group, now: float) -> None:
        late = {
            router
            for router, until in self._read_until.items()
            if until < key.end + SKEW_SECONDS and router not in group.left
        }
        waits = any(
            now < max(key.end, self._expected_since.get(router, 0.0)) + LATE_ROUTER_SECONDS
            for router in late
        )
        if now < key.end + SKEW_SECONDS or waits:
            return
        for router in late:
            self._drop(router, group)
        sums = group.sums()
        decided = all(each.waiting <= (1.0 - DECIDED_SHARE) * each.sent for each in sums.values())
        if not decided and now < key.end + self._timeout + AFTER_TIMEOUT_SECONDS:
            return
        group.failed_before = {
            router: {revision: each.failed for revision, each in group.sums([router]).items()}
            for router in list(group.rows)
        }
        # All that were sent: what waits, or was left alone, has not failed. Were only those looked
        # at that have ended, failures, which are quick, would stand against few slow answers.
        found = {revision: (each.sent, each.failed) for revision, each in sums.items()}
        self._note(self._looks, found)

    def _late_look(self, key: _GroupKey, group: _Group, now: float) -> None:
        before = group.failed_before or {}
        sums = group.sums(before)
        if any(each.open for each in sums.values()) and now < key.end + LATE_SECONDS:
            return
        failed: dict[str, int] = defaultdict(int)
        for known in before.values():
            for revision, count in known.items():
                failed[revision] += count
        late = {
            revision: (
                each.sent - failed[revision], each.failed - failed[revision]
            )
            for revision, each in sums.items()
        }  # fmt: skip
        self._note(self._late, late)
        self._settle(sums)
        self._rows -= sum(map(len, group.rows.values()))
        del self._groups[key]
        self._over.add(key)

    @staticmethod
    def _note(looks: list[dict[str, Look]], found: Mapping[str, Look]) -> None:
        some = {r: (n, max(0, min(n, a))) for r, (n, a) in found.items() if n > 0}
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
        unreached=known["connect"],
    )
