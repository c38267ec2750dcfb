"""Asks Prometheus for the requests of revisions under judgement, in the background.

``observe`` takes the last answer and never waits. Without an answer for ``STALE_SECONDS`` the
counts are unknown, with a sentence why: missing metrics are neither pass nor fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import structlog
from pydantic import TypeAdapter, ValidationError

from llmfleet.api.values import Time
from llmfleet.cluster import metrics
from llmfleet.cluster.background import keep_running
from llmfleet.cluster.counting import LARGEST_COUNT, Attempt, Series
from llmfleet.cluster.prometheus_access import Prometheus
from llmfleet.cluster.prometheus_problems import NO_API, PrometheusError, describe_problem
from llmfleet.cluster.store import Owner
from llmfleet.planning.analysis.metrics import METRICS
from llmfleet.planning.analysis.metrics.error_rate import REQUESTS
from llmfleet.planning.snapshot import JSON, Labels, RequestCounts

POLL_SECONDS: Final = 10.0
STALE_SECONDS: Final = 60.0
OVERLAP_SECONDS: Final = 150.0
"""Asked again each time: two scrapes at Prometheus' default interval of a minute, and some."""
LONGEST_SECONDS: Final = 7 * 86_400.0
SKEW_SECONDS: Final = 60.0
"""So far its clock may be ahead of ours; later samples are of no clock that can be believed."""
EARLIER_SECONDS: Final = 86_400.0
"""Samples so long before the attempt are of no clock that can be believed: none was asked for."""
NAMESPACE_LABEL: Final = "llmdeployment_namespace"
NAME_LABEL: Final = "llmdeployment"
NOT_CONFIGURED: Final = (
    "requests are not judged, since the operator knows no Prometheus: set the chart's"
    " prometheus.url"
)
NOT_ASKED: Final = "Prometheus was not asked yet"
ASKED: Final = "Prometheus was asked and has not answered yet"
NO_SERIES: Final = (
    f"Prometheus answers, but has no {REQUESTS} of this object since the attempt began: have the"
    " router pods scraped, which the chart's monitoring.podMonitor.enabled does where the"
    " Prometheus operator runs"
)

log: Any = structlog.get_logger(__name__)
_TIME: Final = TypeAdapter[datetime](Time)


@dataclass(slots=True, kw_only=True)
class _Tracked:
    attempt: Attempt
    answered: float | None = None
    """Monotonic time of the last answer."""
    counts: Mapping[str, RequestCounts] = field(default_factory=dict)
    """As of the last answer."""
    problem: str = NOT_ASKED


class RequestPoller:
    """Keeps the counts of every tracked LLMDeployment.

    Args:
        connect: makes the connection at the first question; None = there is no Prometheus.
        wake: called with the owner when its counts changed.
        matchers: labels that every series must have beside the object's.
        poll_seconds: between questions.
    """

    def __init__(
        self,
        connect: Callable[[], Prometheus] | None,
        wake: Callable[[Owner], None],
        *,
        matchers: Labels = (),
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._connect = connect
        self._wake = wake
        self._matchers = matchers
        self._poll_seconds = poll_seconds
        self._tracked: dict[Owner, _Tracked] = {}
        self._prometheus: Prometheus | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prometheus")
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask."""
        if self._connect is not None:
            self._task = keep_running("prometheus", self._run)

    async def close(self) -> None:
        """Ask no more; a question under way ends by its own timeout."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=False, cancel_futures=True)

    def track(self, owner: Owner, status: JSON | None) -> None:
        """Count from now on what this status says is under judgement, if anything."""
        since = counted_since(status)
        held = self._tracked.get(owner)
        if since is None:
            self._tracked.pop(owner, None)
        elif held is None or held.attempt.since != since:
            self._tracked[owner] = _Tracked(attempt=Attempt(since))
            self._wanted.set()

    def forget(self, owner: Owner) -> None:
        """Drop an LLMDeployment that is gone."""
        self._tracked.pop(owner, None)

    def report(self, owner: Owner) -> tuple[Mapping[str, RequestCounts] | None, str]:
        """The counts by revision, or None and why there are none; computes nothing."""
        if self._connect is None:
            return None, NOT_CONFIGURED
        held = self._tracked.get(owner)
        if held is None:
            return None, "no request of the new revision is counted yet"
        if held.answered is None or time.monotonic() > held.answered + STALE_SECONDS:
            return None, held.problem
        return held.counts, "" if held.counts else NO_SERIES

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            for owner in list(self._tracked):
                await self._ask(owner)
            if not self._tracked:
                self._wanted.clear()
                continue
            await asyncio.sleep(self._poll_seconds)

    async def _ask(self, owner: Owner) -> None:
        held = self._tracked.get(owner)
        if held is None:
            return
        before = self.report(owner)
        if held.problem == NOT_ASKED:
            held.problem = ASKED
        try:
            held.counts = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._count, owner, held.attempt
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the other objects are asked
            metrics.PROMETHEUS_QUERIES.labels("failed").inc()
            problem = describe_problem(error)
            held.problem = f"Prometheus does not answer: {problem}"
            log.warning("Prometheus does not answer", problem=problem)
        else:
            metrics.PROMETHEUS_QUERIES.labels("answered").inc()
            held.answered = time.monotonic()
        if self.report(owner) != before:
            self._wake(owner)

    def _count(self, owner: Owner, attempt: Attempt) -> Mapping[str, RequestCounts]:
        """In the thread, since a week's samples take seconds; nobody else touches the attempt."""
        found = self._send(build_query(owner, attempt, time.time(), self._matchers))
        attempt.add(parse_series(found, attempt.since, time.time()))
        return attempt.counts()

    def _send(self, query: str) -> Sequence[JSON]:
        if self._prometheus is None:
            if self._connect is None:
                raise RuntimeError("there is no Prometheus")
            self._prometheus = self._connect()
        return self._prometheus.custom_query(query)


def counted_since(status: JSON | None) -> datetime | None:
    """When the attempt under way got its first requests; None while nothing is judged.

    A time that the models cannot read is none: whoever may write statuses stops no reconcile.
    """
    rollout = (status or {}).get("rollout") or {}
    since = rollout.get("servedSince")
    if not since or rollout.get("aborted"):
        return None
    try:
        return _TIME.validate_python(since)
    except ValidationError:
        return None


def build_query(owner: Owner, attempt: Attempt, now: float, matchers: Labels = ()) -> str:
    """Raw samples of all metrics' counters since the last ones seen, or since the attempt began.

    Args:
        owner: namespace and name, which are DNS labels and need no quoting.
        attempt: what was counted so far.
        now: Unix time in seconds.
        matchers: more labels, by name and value.

    Example:
        >>> began = Attempt(datetime.fromisoformat("2026-03-01T12:00:00Z"))
        >>> now = began.since.timestamp() + 600
        >>> query = build_query(("team-a", "chat"), began, now, (("cluster", "eu"),))
        >>> query.partition(",")[2]
        'llmdeployment_namespace="team-a",llmdeployment="chat",cluster="eu"}[750s]'
    """
    oldest = attempt.latest if attempt.latest is not None else attempt.since.timestamp()
    seconds = min(LONGEST_SECONDS, max(0.0, now - oldest) + OVERLAP_SECONDS)
    wanted = ((NAMESPACE_LABEL, owner[0]), (NAME_LABEL, owner[1]), *matchers)
    # PromQL's strings are Go's, of which JSON's are a part but for halves of a surrogate pair.
    labels = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in wanted)
    series = "|".join(dict.fromkeys(name for each in METRICS.values() for name in each.series))
    return f'{{__name__=~"{series}",{labels}}}[{int(seconds)}s]'


def parse_series(found: Iterable[JSON], since: datetime, now: float) -> list[Series]:
    """The matrix of an answer, without what no router can have counted.

    Left out are series whose labels are not all texts, and samples of a time before the attempt or
    of the future, below zero, above what a float counts exactly, or no number.

    Args:
        found: the series; they lose their samples, so that those are not held twice.
        since: when the attempt began.
        now: Unix time in seconds.

    Raises:
        PrometheusError: it is no matrix.
    """
    earliest, latest = since.timestamp() - EARLIER_SECONDS, now + SKEW_SECONDS
    try:
        return [
            Series(
                labels=each["metric"],
                samples=tuple(
                    (at, value)
                    for at, value in (
                        (float(at), float(value)) for at, value in each.pop("values", None) or ()
                    )
                    if earliest <= at <= latest and 0.0 <= value <= LARGEST_COUNT
                ),
            )
            for each in found
            if all(isinstance(text, str) for text in each["metric"].values())
        ]
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise PrometheusError(NO_API) from error
