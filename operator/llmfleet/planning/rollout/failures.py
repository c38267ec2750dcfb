"""When a revision that is being rolled out has failed, and whether that is its own fault.

Its own fault: it is rejected, and never rolled out again without ``retry``. Not its fault (image
pull, volumes, downloads, nodes): it is aborted, and tried again later. Lack of room only waits.

Only what its engines did since the attempt began counts. A kept revision's pods may have a past, so
the ends of their containers are counted when the attempt begins, and those that are not its fault
later are added to that (``ends_before``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from llmfleet.planning.facts.arms import Arm
from llmfleet.planning.rollout.diagnosis import GRACE, diagnose_pod
from llmfleet.planning.rollout.ends import (
    NOT_ITS_FAULT,
    Diagnosis,
    count_ends,
    ended_innocently,
)
from llmfleet.planning.snapshot import ObservedPod

RETRY_DELAYS: Final = (timedelta(minutes=5), timedelta(minutes=10), timedelta(minutes=20))
"""Pauses before the next tries after an abort; then RetriesExhausted (design, section 5)."""
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
    arm: Arm,
    now: datetime,
    deadline_seconds: int,
    ended_before: Mapping[str, int],
    trouble_since: datetime | None,
) -> Failure | None:
    """The failure that a revision's pods show; None while it may still succeed.

    Args:
        arm: of the revision.
        now: the time of the decision.
        deadline_seconds: progressDeadline; running so long without being ready is a failure.
        ended_before: pod → its container's ends that do not count (``ends_before``).
        trouble_since: since when ``is_troubled`` holds; None = it has not been seen yet.
    """
    lasts = trouble_since is not None and now >= trouble_since + GRACE
    found = []
    for pod in arm.live:
        before = ended_before.get(pod.name, 0)
        trouble = diagnose_pod(pod, now, deadline_seconds, before)
        # Pods that come one after the other may each have a trouble that mends itself.
        own = lasts and now >= pod.created_at + GRACE
        found.append(_failure(pod, trouble, before, lasts=own))
    failures = [each for each in found if each is not None]
    return min(failures, key=lambda each: (not each.rejected, each.message), default=None)


def is_troubled(
    arm: Arm, now: datetime, deadline_seconds: int, ended_before: Mapping[str, int]
) -> bool:
    """Whether a revision's pods show what is not its fault; the arguments are as above."""
    return any(
        trouble.reason in NOT_ITS_FAULT
        for pod in arm.live
        if (trouble := diagnose_pod(pod, now, deadline_seconds, ended_before.get(pod.name, 0)))
    )


def ends_before(arm: Arm, recorded: Mapping[str, int] | None) -> dict[str, int]:
    """The ends of containers that do not count against the attempt under way, by pod.

    They are those of before it began, and those up to the last one that was not its fault; until
    such a container has run again for a while, that last one is still told.

    Args:
        arm: of the revision that is being rolled out.
        recorded: what this attempt has recorded so far; None when it begins now.
    """
    counts = {}
    for pod in arm.live:
        if recorded is None:
            counts[pod.name] = count_ends(pod)
        elif ended_innocently(pod):
            counts[pod.name] = pod.restarts
        else:
            counts[pod.name] = recorded.get(pod.name, 0)
    worst_first = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return dict(sorted((name, count) for name, count in worst_first[:MAX_ENDED_BEFORE] if count))


def _failure(
    pod: ObservedPod, trouble: Diagnosis | None, ended_before: int, *, lasts: bool
) -> Failure | None:
    restarts = pod.restarts - ended_before
    if trouble is None:
        if restarts < EXITS_TO_REJECT:
            return None
        text = f"engine pod {pod.name} ended {restarts} times"
        return Failure(reason="EngineExited", message=text, rejected=True)
    innocent = trouble.reason in NOT_ITS_FAULT
    if innocent:
        # One that runs again is given the time that it needs: to fail anew, or to be well.
        runs_again = pod.running_since is not None and not pod.node_lost
        ends = lasts and (not runs_again or trouble.reason == "SidecarFailed")
    else:
        ends = trouble.fatal or restarts >= EXITS_TO_REJECT
    if not ends:
        return None
    return Failure(reason=trouble.reason, message=trouble.message, rejected=not innocent)


def retry_time(aborts: int, now: datetime) -> datetime | None:
    """When a revision is tried again after its ``aborts``-th abort (from 1); None = no more.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> [at.minute if (at := retry_time(n, noon)) else None for n in (1, 2, 3, 4)]
    [5, 10, 20, None]
    """
    return now + RETRY_DELAYS[aborts - 1] if aborts <= len(RETRY_DELAYS) else None
