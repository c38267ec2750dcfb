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
from llmfleet.planning.analysis.evidence import log_evidence, log_evidence_alone
from llmfleet.planning.clock import format_time
from llmfleet.planning.snapshot import RequestCounts

ERROR_RATE: Final = "ErrorRate"
MOST_ODDS: Final = 1_000_000
"""Larger odds are told as this."""
DEFAULT_MIN_EFFECT: Final = 0.01
"""Smallest worsening of the share of failed requests that matters, as a share of all requests."""
STICKY_MIN_EFFECT: Final = 0.02
"""The same where each session stays with a revision: one that always fails is no sign of it."""
MARGIN_TO_THE_PAST: Final = 0.05
"""Worsening accepted where stable has no requests at the same time, as at a weight of 100 %."""
STALE_AFTER: Final = timedelta(minutes=3)
"""Counts whose newest sample is older tell nothing: three scrapes of Prometheus' default minute."""
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
class Judgement:
    """A verdict with the numbers it rests on."""

    verdict: Verdict
    message: str
    stable: float | None = None
    """Share of failed requests of the stable revision, 0 … 1."""
    canary: float | None = None
    requests: int | None = None
    """Requests of the canary that were looked at."""
    min_effect: float = DEFAULT_MIN_EFFECT
    as_of: datetime | None = None
    """When the newest of the numbers was sampled."""
    concurrent: bool = True
    """The comparison is with requests of stable at the same time; otherwise with its past, which
    may send a revision back but never rejects it."""

    def as_result(self) -> MetricResult:
        """The row of ``status.rollout.metricResults``."""
        known = self.canary is not None and self.stable is not None
        return MetricResult(
            name=ERROR_RATE,
            verdict=self.verdict,
            stable=self.stable,
            canary=self.canary,
            n=self.requests,
            effect=(self.canary or 0.0) - (self.stable or 0.0) if known else None,
            min_effect=self.min_effect,
            message=self.message,
            as_of=self.as_of,
        )


def judge_requests(
    counts: Mapping[str, RequestCounts] | None,
    *,
    stable: str,
    canary: str,
    min_samples: int,
    alpha: float,
    now: datetime,
    min_effect: float | None = None,
    unknown: str = "no request counts are known",
) -> Judgement:
    """Compare the share of failed requests of two revisions over the same time.

    Args:
        counts: by revision, since the attempt began; None or an absent entry = unknown.
        stable: hash of the revision compared with.
        canary: hash of the revision judged.
        min_samples: requests each needs before it can be successful.
        alpha: chance of ever failing a canary that is not worse than accepted.
        now: the time of the decision; counts older than ``STALE_AFTER`` tell nothing.
        min_effect: worsening that is still accepted, a share of all requests; None = 0.01.
        unknown: why there may be no counts.
    """
    before, after = (counts or {}).get(stable), (counts or {}).get(canary)
    effect = DEFAULT_MIN_EFFECT if min_effect is None else min_effect
    if before is None or after is None:
        text = unknown or f"no request of {stable if before is None else canary} is counted yet"
        return Judgement(verdict=Verdict.INCONCLUSIVE, message=text)
    as_of = min(before.as_of, after.as_of)
    if now - as_of > STALE_AFTER:
        text = f"the newest request counts are of {format_time(as_of)}, too old to judge by"
        return Judgement(verdict=Verdict.INCONCLUSIVE, message=text, as_of=as_of)
    if min(before.total, before.failed, after.total, after.failed) < 0:
        text = "request counts below zero make no sense"
        return Judgement(verdict=Verdict.ERROR, message=text, as_of=as_of)
    alone = log_evidence_alone(before.looks, after.looks, MARGIN_TO_THE_PAST)
    if alone >= -math.log(alpha):
        return _worse_than_the_past(before, after, stable, as_of)
    evidence = log_evidence(before.looks, after.looks, effect)
    failed = evidence >= -math.log(alpha)
    fewest = min(before.total, after.total)
    if not failed and fewest < min_samples:
        text = f"{fewest} of {min_samples} requests that each revision needs"
        return Judgement(verdict=Verdict.RUNNING, message=text, requests=after.total, as_of=as_of)
    old, new = _share(before), _share(after)
    verdict, said = _verdict(new - old - effect, evidence, failed=failed)
    return Judgement(
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


def judge_since(
    counts: Mapping[str, RequestCounts] | None,
    start: RequestsAtStart | None,
    *,
    stable: str,
    canary: str,
    min_samples: int,
    now: datetime,
    min_effect: float | None = None,
    unknown: str = "no request counts are known",
) -> Judgement:
    """The same of the requests that came since the clock of a step started; it never fails.

    Args:
        counts: as for ``judge_requests``.
        start: counts when the clock started; None = it has not, or nobody could count then.
        stable: hash of the revision compared with.
        canary: hash of the revision judged.
        min_samples: requests each needs before it can be successful.
        now: the time of the decision.
        min_effect: worsening that is still accepted, a share of all requests; None = 0.01.
        unknown: why there may be no counts.
    """
    own = None
    if counts is not None and start is not None and {stable, canary} <= set(counts):
        own = {
            stable: _later(counts[stable], start.stable),
            canary: _later(counts[canary], start.canary),
        }
    return judge_requests(
        own,
        stable=stable,
        canary=canary,
        min_samples=min_samples,
        alpha=0.5,  # without intervals nothing is bet, so nothing can fail
        now=now,
        min_effect=min_effect,
        unknown=unknown if counts is None or start is not None else "it is not counted yet",
    )


def _later(now: RequestCounts, then: CountedRequests) -> RequestCounts:
    return RequestCounts(
        total=max(0, now.total - then.total),
        failed=max(0, now.failed - then.failed),
        as_of=now.as_of,
    )


def _share(counts: RequestCounts) -> float:
    """Share of failed requests; one that failed before it was counted as sent counts as one."""
    return min(counts.failed, counts.total) / counts.total if counts.total else 0.0


def _worse_than_the_past(
    before: RequestCounts, after: RequestCounts, stable: str, as_of: datetime
) -> Judgement:
    return Judgement(
        verdict=Verdict.FAILED,
        message=(
            f"{_share(after):.1%} of {after.total} requests failed while {stable} had none to"
            f" compare with; before that {_share(before):.1%} of its {before.total} failed"
        ),
        stable=_share(before),
        canary=_share(after),
        requests=after.total,
        min_effect=MARGIN_TO_THE_PAST,
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
