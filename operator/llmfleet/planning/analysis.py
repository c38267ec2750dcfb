"""The judge of a revision: what is known about it, as one verdict (design, section 8).

The words have Argo Rollouts' meaning. This judge is simple: the share of failed requests of both
revisions over the same time, with a minimum of samples. Whoever replaces it keeps the signature of
``judge_requests``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from llmfleet.api import MetricResult
from llmfleet.planning.snapshot import RequestCounts

ERROR_RATE: Final = "ErrorRate"
DEFAULT_MIN_EFFECT: Final = 0.01
"""Smallest worsening of the share of failed requests that matters, as a share of all requests."""
NUMBERS_KEPT: Final = timedelta(minutes=1)
"""So long recorded numbers stay as they are while the verdict does, or every look would write."""


class Verdict(StrEnum):
    """What an analysis says."""

    RUNNING = "Running"
    """Too few samples yet."""
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
    min_effect: float | None = None,
    unknown: str = "no request counts are known",
) -> Judgement:
    """Compare the share of failed requests of two revisions over the same time.

    Args:
        counts: by revision, since the attempt began; None or an absent entry = unknown.
        stable: hash of the revision compared with.
        canary: hash of the revision judged.
        min_samples: requests each needs before there is a verdict.
        min_effect: worsening that is still accepted, a share of all requests; None = 0.01.
        unknown: why there may be no counts.
    """
    before, after = (counts or {}).get(stable), (counts or {}).get(canary)
    effect = DEFAULT_MIN_EFFECT if min_effect is None else min_effect
    if before is None or after is None:
        return Judgement(verdict=Verdict.INCONCLUSIVE, message=unknown)
    if any(not 0 <= each.failed <= each.total for each in (before, after)):
        return Judgement(verdict=Verdict.ERROR, message="more requests failed than were sent")
    fewest = min(before.total, after.total)
    if fewest < min_samples:
        text = f"{fewest} of {min_samples} requests that each revision needs"
        return Judgement(verdict=Verdict.RUNNING, message=text, requests=after.total)
    old, new = before.failed / before.total, after.failed / after.total
    failed = new - old > effect
    return Judgement(
        verdict=Verdict.FAILED if failed else Verdict.SUCCESSFUL,
        message=(
            f"{new:.1%} of {after.total} requests failed, {old:.1%} of {before.total} on {stable};"
            f" at most {effect:.1%} more are accepted"
        ),
        stable=old,
        canary=new,
        requests=after.total,
        min_effect=effect,
    )


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
