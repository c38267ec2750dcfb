"""Adds up Prometheus counters since a moment: exact whole numbers, across restarts of routers.

PromQL's ``increase`` extrapolates to the ends of its window and gives fractions; a verdict needs
the requests that were really counted. They are counted by interval, too, since evidence is gathered
interval by interval; which ones there are depends on the clock alone, so that an operator that
starts anew counts the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from llmfleet.planning.analysis.metrics.error_rate import ERRORS, REQUESTS
from llmfleet.planning.snapshot import Look, RequestCounts

Sample = tuple[float, float]
"""Unix time in seconds, and the counter's value."""
Labels = frozenset[tuple[str, str]]
_Counter = tuple[str, str, str | Labels]
"""Name, revision, and the router that counts."""

REVISION: Final = "revision"
PLACES: Final = ("exported_pod", "pod", "exported_instance", "instance")
"""Labels that say which router counted, the best one first; ``exported_`` ones are what is left of
the router's own where another exporter stands between (Prometheus, ``honor_labels``)."""
COPY_SECONDS: Final = 60.0
"""A copy of a counter that is so much older than another one is left for it."""
INTERVALS: Final = ((24, 5.0), (238, 60.0), (288, 300.0))
"""So many intervals of so many seconds, short while a broken revision costs most: two minutes,
four hours, a day; then they are as long as ``LONG_SECONDS``."""
LONG_SECONDS: Final = 3600.0
LATE_SECONDS: Final = 5.0
"""A sample is no longer waited for when a newer one of another router is this much younger."""
LARGEST_COUNT: Final = 2**53
"""Up to here a float holds every whole number (IEEE 754), and a status holds it as well; nothing is
counted beyond."""


def interval_at(seconds: float) -> int:
    """Index of the interval in which so many seconds since the start lie.

    >>> [interval_at(at) for at in (0.0, 4.9, 5.0, 119.0, 120.0, 181.0)]
    [0, 0, 1, 23, 24, 25]
    """
    index, left = 0, seconds
    for many, length in INTERVALS:
        if left < many * length:
            return index + int(left // length)
        index, left = index + many, left - many * length
    return index + int(left // LONG_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Samples of one counter, oldest first."""

    labels: Mapping[str, str]
    """With ``__name__``."""
    samples: tuple[Sample, ...]


def _identify(labels: Mapping[str, str]) -> _Counter | None:
    """Which counter of which router it is; None = none that is counted.

    Labels such as ``job``, ``replica`` and ``prometheus`` say who scraped it. A series without any
    place is told by all its labels.
    """
    name, revision = labels.get("__name__"), labels.get(REVISION)
    if name not in {REQUESTS, ERRORS} or not revision:
        return None
    place = next((labels[each] for each in PLACES if labels.get(each)), None)
    return name, revision, place or frozenset(labels.items())


class Attempt:
    """Requests of one attempt of a rollout, by revision.

    Args:
        since: what happened before is not counted.
    """

    def __init__(self, since: datetime) -> None:
        self.since = since
        self._last: dict[_Counter, Sample] = {}
        self._copies: dict[_Counter, Labels] = {}
        """Which of several copies of a counter is counted."""
        self._totals: dict[tuple[str, str], float] = defaultdict(float)
        self._by_interval: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        self._closed = 0
        """Index of the first interval that has not been reported yet."""

    def add(self, found: Iterable[Series]) -> None:
        """Count what is new in these samples; those seen before are left out by their time.

        A series whose first sample is later than ``since`` began at zero then; a value below the
        one before means that the router began anew (Prometheus, "counter resets"). What several
        jobs or replicas of Prometheus scraped of one router is one counter.
        """
        copies: dict[_Counter, list[Series]] = defaultdict(list)
        for series in found:
            counter = _identify(series.labels)
            if counter is not None and series.samples:
                copies[counter].append(series)
        for counter, same in copies.items():
            self._add(counter, self._choose(counter, same))

    def _choose(self, counter: _Counter, same: Sequence[Series]) -> Series:
        """The copy counted so far, unless it is scraped no more; else the one that goes back most.

        A copy's samples are a little older or younger than those of another one, so that going to
        and fro could show a value below the one before: that of a router that began anew. And one
        that is scraped since a moment ago would seem to have counted all of it in that moment.
        """
        newest = max(series.samples[-1][0] for series in same)
        fresh = [each for each in same if each.samples[-1][0] >= newest - COPY_SECONDS]
        known = self._copies.get(counter)
        for series in fresh:
            if frozenset(series.labels.items()) == known:
                return series
        oldest = min(fresh, key=lambda series: series.samples[0][0])
        self._copies[counter] = frozenset(oldest.labels.items())
        return oldest

    def _add(self, counter: _Counter, series: Series) -> None:
        start = self.since.timestamp()
        name, revision, _ = counter
        for at, value in series.samples:
            last = self._last.get(counter)
            if last is not None and at <= last[0]:
                continue
            before = 0.0 if last is None or value < last[1] else last[1]
            self._last[counter] = (at, value)
            grown = value - before if at > start else 0.0
            self._totals[name, revision] = min(LARGEST_COUNT, self._totals[name, revision] + grown)
            if grown:
                interval = max(interval_at(at - start), self._closed)
                self._by_interval[name, revision][interval] += round(grown)

    @property
    def latest(self) -> float | None:
        """Unix time of the newest sample."""
        return max((at for at, _ in self._last.values()), default=None)

    def counts(self) -> dict[str, RequestCounts]:
        """By revision; one without samples is absent."""
        as_of = datetime.fromtimestamp(self.latest or 0.0, UTC)
        revisions = {revision for name, revision in self._totals if name == REQUESTS}
        looks = self._looks(sorted(revisions))
        return {
            revision: RequestCounts(
                total=round(self._totals[REQUESTS, revision]),
                failed=round(self._totals[ERRORS, revision]),
                as_of=as_of,
                looks=looks[revision],
            )
            for revision in sorted(revisions)
        }

    def _looks(self, revisions: Sequence[str]) -> dict[str, tuple[Look, ...]]:
        """Closed intervals by revision, those in which nothing happened left out for all."""
        age = (self.latest or 0.0) - LATE_SECONDS - self.since.timestamp()
        self._closed = max(self._closed, interval_at(max(0.0, age)))
        seen = {index for counts in self._by_interval.values() for index in counts}
        closed = sorted(index for index in seen if index < self._closed)
        return {
            revision: tuple(
                (self._by_interval[REQUESTS, revision][i], self._by_interval[ERRORS, revision][i])
                for i in closed
            )
            for revision in revisions
        }
