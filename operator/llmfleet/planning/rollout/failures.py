"""When a revision that is being rolled out has failed, and whether that is its own fault.

Its own fault: it is rejected, and never rolled out again without ``retry``. Not its fault (image
pull, volumes, downloads, nodes): it is aborted, and tried again later. Lack of room only waits.

Only what its engines did since the attempt began counts. A kept revision's pods may have a past, so
the ends of their containers are counted when the attempt begins, and what their nodes do to them
later is added to that (``ends_before``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from llmfleet.planning.facts.arms import Arm
from llmfleet.planning.rollout.diagnosis import (
    Diagnosis,
    count_ends,
    diagnose_pod,
    is_nodes_doing,
)
from llmfleet.planning.snapshot import ObservedPod

RETRY_DELAYS: Final = (timedelta(minutes=5), timedelta(minutes=10), timedelta(minutes=20))
"""Pauses before the next tries after an abort; then RetriesExhausted (design, section 5)."""
NOT_ITS_FAULT: Final = frozenset({
    "ImagePullFailed", "SecretMissing", "ClaimMissing", "DownloadFailed", "Unauthorized",
    "NodeLost", "StartError",
})  # fmt: skip
GRACE: Final = timedelta(minutes=2)
"""So long after a pod was made, or its node was lost, its cluster's troubles may mend
themselves."""
EXITS_TO_REJECT: Final = 2
"""Restarts of one pod after which exits that might help to be tried again count as a crash loop."""
MAX_ENDED_BEFORE: Final = 256
"""Pods with a past that are remembered by name, those with the most of it."""
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
    arm: Arm, now: datetime, deadline_seconds: int, ended_before: Mapping[str, int]
) -> Failure | None:
    """The failure that a revision's pods show; None while it may still succeed.

    Args:
        arm: of the revision.
        now: the time of the decision.
        deadline_seconds: progressDeadline; running so long without being ready is a failure.
        ended_before: pod → its container's ends that do not count (``ends_before``).
    """
    found = [
        failure
        for pod in arm.live
        if (failure := _pod_failure(pod, now, deadline_seconds, ended_before.get(pod.name, 0)))
        is not None
    ]
    return min(found, key=lambda each: (not each.rejected, each.message), default=None)


def ends_before(arm: Arm, recorded: Mapping[str, int] | None) -> dict[str, int]:
    """The ends of containers that do not count against the attempt under way, by pod.

    They are those of before it began, and those up to the last one that was its node's doing; while
    such a container is not running again, that last one is still told.

    Args:
        arm: of the revision that is being rolled out.
        recorded: what this attempt has recorded so far; None when it begins now.
    """
    counts = {}
    for pod in arm.live:
        end = pod.last_termination
        if recorded is None:
            counts[pod.name] = count_ends(pod)
        elif end is not None and is_nodes_doing(end):
            counts[pod.name] = pod.restarts
        else:
            counts[pod.name] = recorded.get(pod.name, 0)
    worst_first = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return dict(sorted((name, count) for name, count in worst_first[:MAX_ENDED_BEFORE] if count))


def _pod_failure(
    pod: ObservedPod, now: datetime, deadline_seconds: int, before: int
) -> Failure | None:
    trouble = diagnose_pod(pod, now, deadline_seconds, before)
    restarts = pod.restarts - before
    if trouble is None:
        if restarts >= EXITS_TO_REJECT:
            text = f"engine pod {pod.name} ended {restarts} times"
            return Failure(reason="EngineExited", message=text, rejected=True)
        return None
    if trouble.reason in NOT_ITS_FAULT:
        return _failure(trouble, rejected=False) if now >= failure_time(pod) else None
    if trouble.fatal or restarts >= EXITS_TO_REJECT:
        return _failure(trouble, rejected=True)
    return None


def _failure(trouble: Diagnosis, *, rejected: bool) -> Failure:
    return Failure(reason=trouble.reason, message=trouble.message, rejected=rejected)


def failure_time(pod: ObservedPod) -> datetime:
    """When the grace of a pod ends: from then on what is not its fault is not waited for."""
    since, end = pod.created_at, pod.last_termination
    if pod.node_lost and pod.unready_since is not None:
        since = pod.unready_since
    elif end is not None and is_nodes_doing(end) and end.finished_at is not None:
        since = max(since, end.finished_at)
    return since + GRACE


def retry_time(aborts: int, now: datetime) -> datetime | None:
    """When a revision is tried again after its ``aborts``-th abort (from 1); None = no more.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> [at.minute if (at := retry_time(n, noon)) else None for n in (1, 2, 3, 4)]
    [5, 10, 20, None]
    """
    return now + RETRY_DELAYS[aborts - 1] if aborts <= len(RETRY_DELAYS) else None
