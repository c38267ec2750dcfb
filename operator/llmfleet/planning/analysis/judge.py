"""The judge of a revision: what is known about it, as one verdict (design, section 8).

The words have Argo Rollouts' meaning. A canary fails on evidence (``evidence``), which is valid
however often one looks; it is successful with a minimum of samples whose shares are near enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from llmfleet.api import CountedRequests, MetricResult, RequestsAtStart
from llmfleet.planning.analysis.evidence import log_mean
from llmfleet.planning.analysis.metrics.metric import Metric
from llmfleet.planning.signal import Signal
from llmfleet.planning.snapshot import RequestCounts

MOST_ODDS: Final = 1_000_000
"""Larger odds are told as this."""
NUMBERS_KEPT: Final = timedelta(minutes=1)
"""So long recorded numbers stay as they are while the verdict does, or every look would write."""


class Verdict(StrEnum):
    """What an analysis says."""

    RUNNING = "Running"
    """Too few samples yet, or a difference that may be chance."""
    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    """The numbers cannot be had: neither pass nor fail."""
    ERROR = "Error"
    """The numbers make no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """What a revision is held to by one metric."""

    metric: Metric
    min_effect: float
    """Worsening that is still accepted, a share of all requests, 0 … 1."""
    min_samples: int
    """Requests each revision needs before the canary can be successful."""
    alpha: float
    """Chance of ever failing a canary that is not worse than accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict with the numbers it rests on."""

    metric: Metric
    verdict: Verdict
    message: str
    stable: float | None = None
    """Share of failed requests of the stable revision, 0 … 1."""
    canary: float | None = None
    requests: int | None = None
    """Requests of the canary that were looked at."""
    min_effect: float
    """Worsening that is accepted, a share of all requests."""
    as_of: datetime | None = None
    """When routers were last asked for the numbers."""
    concurrent: bool = True
    """The comparison is with requests of stable at the same time; otherwise with its past, which
    may send a revision back but never rejects it."""

    def as_result(self) -> MetricResult:
        """The row of ``status.rollout.metricResults``."""
        known = self.canary is not None and self.stable is not None
        return MetricResult(
            name=self.metric.name,
            verdict=self.verdict,
            stable=self.stable,
            canary=self.canary,
            n=self.requests,
            effect=(self.canary or 0.0) - (self.stable or 0.0) if known else None,
            min_effect=self.min_effect,
            message=self.message,
            as_of=self.as_of,
        )


Counted = Signal[Mapping[str, RequestCounts]]
"""Counts by revision, or why there are none; too old ones are none (``facts.read``)."""


def judge_requests(
    requests: Counted, criterion: Criterion, *, stable: str, canary: str
) -> Judgement:
    """Compare the share of failed requests of two revisions over the same time.

    Args:
        requests: since the attempt began; a revision that is absent was sent none.
        criterion: what the canary is held to.
        stable: hash of the revision compared with.
        canary: hash of the revision judged.
    """
    as_of, counts = requests.as_of, requests.value or {}
    before, after = counts.get(stable), counts.get(canary)
    if before is None or after is None:
        nobody = f"no request of {stable if before is None else canary} is counted yet"
        return undecided(criterion, Verdict.INCONCLUSIVE, requests.problem or nobody, as_of)
    if min(before.total, before.failed, after.total, after.failed) < 0:
        text = "request counts below zero make no sense"
        return undecided(criterion, Verdict.ERROR, text, as_of)
    return _compare(before, after, criterion, stable, as_of)


def judge_since(
    requests: Counted,
    start: RequestsAtStart | None,
    criterion: Criterion,
    *,
    stable: str,
    canary: str,
) -> Judgement:
    """The same of the requests that came since the clock of a step started; it never fails.

    Args:
        requests: as for ``judge_requests``.
        start: counts when the clock started; None = it has not, or nobody could count then.
        criterion: what the canary is held to.
        stable: hash of the revision compared with.
        canary: hash of the revision judged.
    """
    counts, own = requests.value, requests
    if counts is not None and start is None:
        own = Signal(problem="it is not counted yet", as_of=requests.as_of)
    elif counts is not None and start is not None and {stable, canary} <= set(counts):
        later = {
            stable: _later(counts[stable], start.stable),
            canary: _later(counts[canary], start.canary),
        }
        own = Signal(value=later, as_of=requests.as_of)
    # Without intervals nothing is bet, so nothing can fail.
    return judge_requests(own, replace(criterion, alpha=0.5), stable=stable, canary=canary)


def undecided(
    criterion: Criterion, verdict: Verdict, message: str, as_of: datetime | None = None
) -> Judgement:
    """A judgement without numbers; the message says why there are none."""
    return Judgement(
        metric=criterion.metric, verdict=verdict, message=message,
        min_effect=criterion.min_effect, as_of=as_of,
    )  # fmt: skip


def _compare(
    before: RequestCounts,
    after: RequestCounts,
    criterion: Criterion,
    stable: str,
    as_of: datetime | None,
) -> Judgement:
    """The verdict on counts that can be judged."""
    metric, effect = criterion.metric, criterion.min_effect
    enough = -math.log(criterion.alpha)
    if after.hanging:
        text = f"none of its last {after.hanging} requests was answered, while {stable} answered"
        hung = undecided(criterion, Verdict.FAILED, text, as_of)
        return replace(hung, stable=_share(before), canary=_share(after), requests=after.total)
    if metric.process_alone(before.looks, after.looks, metric.effect_alone) >= enough:
        return _worse_than_the_past(before, after, metric, stable, as_of)
    evidence = _evidence(before, after, criterion)
    failed = evidence >= enough
    fewest = min(before.total, after.total)
    if not failed and fewest < criterion.min_samples:
        text = f"{fewest} of {criterion.min_samples} requests that each revision needs"
        few = undecided(criterion, Verdict.RUNNING, text, as_of)
        return replace(few, requests=after.total)
    old, new = _share(before), _share(after)
    verdict, said = _verdict(new - old - effect, evidence, failed=failed)
    return Judgement(
        metric=metric,
        verdict=verdict,
        message=(
            f"{new:.1%} of {after.total} requests failed, {old:.1%} of {before.total} on {stable};"
            f" at most {effect:.1%} more are accepted{said}"
        ),
        stable=old,
        canary=new,
        requests=after.total,
        min_effect=effect,
        as_of=as_of,
    )


def _evidence(before: RequestCounts, after: RequestCounts, criterion: Criterion) -> float:
    """Of what fails at first and of what breaks off later: the mean of two is evidence as well."""
    process, effect = criterion.metric.process, criterion.min_effect
    return log_mean(
        (
            process(before.looks, after.looks, effect),
            process(before.late_looks, after.late_looks, effect),
        ),
        (0.5, 0.5),
    )


def _later(now: RequestCounts, then: CountedRequests) -> RequestCounts:
    return RequestCounts(
        total=max(0, now.total - then.total),
        failed=max(0, now.failed - then.failed),
    )


def _share(counts: RequestCounts) -> float:
    """Share of failed requests; one that failed before it was counted as sent counts as one."""
    return min(counts.failed, counts.total) / counts.total if counts.total else 0.0


def _worse_than_the_past(
    before: RequestCounts,
    after: RequestCounts,
    metric: Metric,
    stable: str,
    as_of: datetime | None,
) -> Judgement:
    return Judgement(
        metric=metric,
        verdict=Verdict.FAILED,
        message=(
            f"{_share(after):.1%} of {after.total} requests failed while {stable} had none to"
            f" compare with; before that {_share(before):.1%} of its {before.total} failed"
        ),
        stable=_share(before),
        canary=_share(after),
        requests=after.total,
        min_effect=metric.effect_alone,
        as_of=as_of,
        concurrent=False,
    )


def _verdict(excess: float, evidence: float, *, failed: bool) -> tuple[Verdict, str]:
    """The verdict, and what chance has to do with it as the end of a sentence.

    Args:
        excess: of the canary's share of failed requests, beyond what is accepted.
        evidence: that it is one, as a logarithm.
        failed: whether it is enough.
    """
    odds = round(math.exp(min(evidence, math.log(MOST_ODDS))))
    if failed:
        return Verdict.FAILED, f", and chance does this to a good one at most once in {odds:,}"
    if excess <= 0:
        return Verdict.SUCCESSFUL, ""
    rare = f" (at most once in {odds:,})" if odds > 1 else ""
    return Verdict.RUNNING, f", but it may be chance{rare}"


def keep_numbers(fresh: Judgement, recorded: MetricResult | None, now: datetime) -> Judgement:
    """A new judgement with the recorded numbers, unless the verdict or a minute has passed.

    Args:
        fresh: the judgement of now.
        recorded: what status says of the same metric of the same attempt.
        now: the time of the decision.
    """
    dated = fresh if fresh.as_of is not None else replace(fresh, as_of=now)
    if recorded is None or recorded.verdict != fresh.verdict or recorded.as_of is None:
        return dated
    before = Judgement(
        metric=fresh.metric,
        verdict=fresh.verdict,
        message=recorded.message or "",
        stable=recorded.stable,
        canary=recorded.canary,
        requests=recorded.n,
        min_effect=recorded.min_effect or fresh.min_effect,
        as_of=recorded.as_of,
        concurrent=fresh.concurrent,
    )
    same = replace(dated, as_of=recorded.as_of) == before
    return before if same or now < recorded.as_of + NUMBERS_KEPT else dated
