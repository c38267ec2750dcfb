"""The ledger as Prometheus' counters: what became of requests, and the time to their first token.

Rows come and go; counters only rise. So what rows have grown by is added up here, for as long as
the agent lives. One that starts beside an Envoy that has booked for hours begins at 0, as counters
do at a start; with what is in the table it would begin at a sum that was counted before.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from llmfleet_router.ledger import OUTCOMES, TIME_BOUNDS_SECONDS, TIMES, Ledger, LedgerError
from llmfleet_router.settings import Settings

LABELS = ("llmdeployment_namespace", "llmdeployment", "revision")
BUCKETS = (*(str(bound) for bound in TIME_BOUNDS_SECONDS), "+Inf")


class LedgerMetrics(Collector):
    """Counters of one router, by revision.

    Args:
        settings: name the object.
        ledger: the table.
    """

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._of = (settings.namespace, settings.name)
        self._ledger = ledger
        self._one_at_a_time = threading.Lock()
        """Two scrapes at once would add the same growth twice."""
        self._started = time.time_ns()
        self._epoch = 0
        self._seen: dict[int, tuple[int, ...]] = {}
        """Counts of each row, by its birth, as they were added up."""
        self._outcomes: dict[str, list[int]] = defaultdict(lambda: [0] * len(OUTCOMES))
        self._times: dict[str, list[int]] = defaultdict(lambda: [0] * len(BUCKETS))

    def update(self) -> None:
        """Add what rows have grown by; nothing while there is no table."""
        with self._one_at_a_time, contextlib.suppress(LedgerError):
            epoch = self._ledger.epoch()
            if epoch != self._epoch:
                older = not self._epoch and epoch < self._started
                self._epoch, self._seen = epoch, {}
                if older:
                    self._seen = {row.birth: row.counts for row in self._ledger.rows()}
                    return
            before, self._seen = self._seen, {}
            for row in self._ledger.rows():
                self._seen[row.birth] = row.counts
                if row.counts != (last := before.get(row.birth)):
                    kept = self._times if row.key.kind == TIMES else self._outcomes
                    _grow(kept[row.key.revision], row.counts, last)

    def collect(self) -> Iterator[Metric]:
        """All of them, as of the last ``update``."""
        sent = CounterMetricFamily(
            "llmfleet_router_sent", "Requests sent to engines of the revision.", labels=LABELS
        )
        outcomes = CounterMetricFamily(
            "llmfleet_router_outcomes",
            "What became of them (docs/router.md, The ledger).",
            labels=(*LABELS, "outcome"),
        )
        for revision, counts in sorted(self._outcomes.items()):
            sent.add_metric((*self._of, revision), counts[0])
            for name, count in zip(OUTCOMES[2:], counts[2:], strict=True):
                outcomes.add_metric((*self._of, revision, name), count)
        times = HistogramMetricFamily(
            "llmfleet_router_first_token_seconds",
            "From sending a request to the first byte of its answer's body.",
            labels=LABELS,
        )
        for revision, buckets in sorted(self._times.items()):
            rising = accumulate(buckets)
            times.add_metric((*self._of, revision), list(zip(BUCKETS, rising, strict=True)), None)
        yield from (sent, outcomes, times)


def _grow(totals: list[int], now: tuple[int, ...], before: tuple[int, ...] | None) -> None:
    for at in range(len(totals)):
        totals[at] += now[at] - (before[at] if before else 0)
