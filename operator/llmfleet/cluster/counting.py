"""Adds up Prometheus counters since a moment: exact whole numbers, across restarts of routers.

PromQL's ``increase`` extrapolates to the ends of its window and gives fractions; a verdict needs
the requests that were really counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from llmfleet.planning.snapshot import RequestCounts

Sample = tuple[float, float]
"""Unix time in seconds, and the counter's value."""
Labels = frozenset[tuple[str, str]]

REQUESTS: Final = "llmfleet_router_requests_total"
ERRORS: Final = "llmfleet_router_errors_total"
REVISION: Final = "revision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Samples of one counter, oldest first."""

    labels: Mapping[str, str]
    """With ``__name__``."""
    samples: tuple[Sample, ...]


class Attempt:
    """Requests of one attempt of a rollout, by revision.

    Args:
        since: what happened before is not counted.
    """

    def __init__(self, since: datetime) -> None:
        self.since = since
        self._last: dict[Labels, Sample] = {}
        self._totals: dict[tuple[str, str], float] = defaultdict(float)

    def add(self, found: Iterable[Series]) -> None:
        """Count what is new in these samples; those seen before are left out by their time.

        A series whose first sample is later than ``since`` began at zero then; a value below the
        one before means that the router began anew (Prometheus, "counter resets").
        """
        start = self.since.timestamp()
        for series in found:
            name, revision = series.labels.get("__name__"), series.labels.get(REVISION)
            if name not in {REQUESTS, ERRORS} or not revision:
                continue
            key: Labels = frozenset(series.labels.items())
            for at, value in series.samples:
                last = self._last.get(key)
                if last is not None and at <= last[0]:
                    continue
                before = 0.0 if last is None or value < last[1] else last[1]
                grown = value - before if at > start else 0.0
                self._totals[name, revision] += grown
                self._last[key] = (at, value)

    @property
    def latest(self) -> float | None:
        """Unix time of the newest sample."""
        return max((at for at, _ in self._last.values()), default=None)

    def counts(self) -> dict[str, RequestCounts]:
        """By revision; one that no sample told of is absent."""
        as_of = datetime.fromtimestamp(self.latest or 0.0, UTC)
        revisions = {revision for name, revision in self._totals if name == REQUESTS}
        return {
            revision: RequestCounts(
                total=round(self._totals[REQUESTS, revision]),
                failed=round(self._totals[ERRORS, revision]),
                as_of=as_of,
            )
            for revision in sorted(revisions)
        }
