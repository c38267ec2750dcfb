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

from llmfleet.api import MetricResult
from llmfleet.planning.analysis.evidence import log_evidence
from llmfleet.planning.snapshot import RequestCounts

ERROR_RATE: Final = "ErrorRate"
MOST_ODDS: Final = 1_000_000
"""Larger odds are told as this."""
DEFAULT_MIN_EFFECT: Final = 0.01
"""Smallest worsening of the share of failed requests that matters, as a share of all requests."""
STICKY_MIN_EFFECT: Final = 0.02
"""The same where each session stays with a revision: one that always fails is no sign of it."""
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
    """When the numbers were read."""


def judge_requests(
    counts: Mapping[str, RequestCounts] | None,
    *,
    stable: str,
    canary: str,
    min_samples: int,
    alpha: float,
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
        min_effect: worsening that is still accepted, a share of all requests; None = 0.01.
        unknown: why there may be no counts.
    """
    before, after = (counts or {}).get(stable), (counts or {}).get(canary)
    effect = DEFAULT_MIN_EFFECT if min_effect is None else min_effect
    if before is None or after is None:
        return Judgement(verdict=Verdict.INCONCLUSIVE, message=unknown)
    if any(not 0 <= each.failed <= each.total for each in (before, after)):
        return Judgement(verdict=Verdict.ERROR, message="more requests failed than were sent")
    evidence = log_evidence(before.looks, after.looks, effect)
    failed = evidence >= -math.log(alpha)
    fewest = min(before.total, after.total)
    if not failed and fewest < min_samples:
        text = f"{fewest} of {min_samples} requests that each revision needs"
        return Judgement(verdict=Verdict.RUNNING, message=text, requests=after.total)
    old, new = before.failed / before.total, after.failed / after.total
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
    dated = replace(fresh, as_of=now)
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
    )
    same = replace(dated, as_of=recorded.as_of) == before
    return before if same or now < recorded.as_of + NUMBERS_KEPT else dated


def describe_failed(counts: Mapping[str, RequestCounts] | None, revision: str) -> str:
    """What clients felt of a revision that goes back, as the end of a sentence.

    Example:
        >>> from datetime import UTC
        >>> seen = RequestCounts(total=340, failed=12, as_of=datetime(2026, 1, 1, tzinfo=UTC))
        >>> describe_failed({"9a0b": seen}, "9a0b")
        '; it failed 12 of the 340 requests that it got'
    """
    found = (counts or {}).get(revision)
    if found is None:
        return ""
    return f"; it failed {found.failed} of the {found.total} requests that it got"
