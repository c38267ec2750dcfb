"""When a revision that is being rolled out has failed, and whether that is its own fault.

Its own fault: it is rejected, and never rolled out again without ``retry``. Not its fault (image
pull, volumes, downloads): it is aborted, and tried again later. Lack of room only waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from llmfleet.planning.rollout.diagnosis import Diagnosis, diagnose_pod
from llmfleet.planning.snapshot import ObservedPod

RETRY_DELAYS: Final = (timedelta(minutes=5), timedelta(minutes=10), timedelta(minutes=20))
"""Pauses before the next tries after an abort; then RetriesExhausted (design, section 5)."""
NOT_ITS_FAULT: Final = frozenset({
    "ImagePullFailed", "SecretMissing", "ClaimMissing", "DownloadFailed", "Unauthorized",
})  # fmt: skip
GRACE: Final = timedelta(minutes=2)
"""So long after a pod was made its cluster's troubles may mend themselves."""
EXITS_TO_REJECT: Final = 2
"""Ends of one pod's engine in an attempt after which exits that another try might mend count as a
crash loop."""
GENTLE: Final = frozenset({
    "Superseded", "Retried", "UserAbort", "UserUndo", "AnalysisInconclusive",
})  # fmt: skip
"""Reasons for which traffic leaves only as fast as ready stable pods can carry it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a rollout goes back."""

    reason: str
    message: str
    rejected: bool
    """False: only aborted, and tried again."""


def find_pod_failure(
    pods: Iterable[ObservedPod],
    now: datetime,
    deadline_seconds: int,
    restarts_at_start: Mapping[str, int],
) -> Failure | None:
    """The failure that a revision's pods show; None while it may still succeed.

    Args:
        pods: those of it that are not being deleted.
        now: the time of the decision.
        deadline_seconds: progressDeadline; running so long without being ready is a failure.
        restarts_at_start: by pod name, how often its engine had ended before the attempt began.
    """
    found = []
    for pod in pods:
        ends = max(0, pod.restarts - restarts_at_start.get(pod.name, 0))
        found.append(_pod_failure(pod, now, deadline_seconds, ends))
    failures = [each for each in found if each is not None]
    return min(failures, key=lambda each: (not each.rejected, each.message), default=None)


def _pod_failure(
    pod: ObservedPod, now: datetime, deadline_seconds: int, ends: int
) -> Failure | None:
    trouble = diagnose_pod(pod, now, deadline_seconds)
    if trouble is None:
        if ends >= EXITS_TO_REJECT:
            text = f"engine pod {pod.name} ended {ends} times"
            return Failure(reason="EngineExited", message=text, rejected=True)
        return None
    if trouble.reason in NOT_ITS_FAULT:
        return _failure(trouble, rejected=False) if now >= pod.created_at + GRACE else None
    if trouble.fatal or ends >= EXITS_TO_REJECT:
        return _failure(trouble, rejected=True)
    return None


def _failure(trouble: Diagnosis, *, rejected: bool) -> Failure:
    return Failure(reason=trouble.reason, message=trouble.message, rejected=rejected)


def failure_time(pod: ObservedPod) -> datetime:
    """When the grace of a pod ends."""
    return pod.created_at + GRACE


def retry_time(aborts: int, now: datetime) -> datetime | None:
    """When a revision is tried again after its ``aborts``-th abort (from 1); None = no more.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> [at.minute if (at := retry_time(n, noon)) else None for n in (1, 2, 3, 4)]
    [5, 10, 20, None]
    """
    return now + RETRY_DELAYS[aborts - 1] if aborts <= len(RETRY_DELAYS) else None
