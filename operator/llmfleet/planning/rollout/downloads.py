"""Downloads of engine pods: as long as bytes come, a revision makes progress.

A model of hundreds of gigabytes takes longer than any progressDeadline that notices a hang. So the
deadline stands still while bytes move, and counts from the last one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from llmfleet.planning.facts.arms import Arm
from llmfleet.planning.snapshot import Download

STALLED_AFTER: Final = timedelta(minutes=2)
"""Without a byte for so long a download moves no more; the hub's client gives up much sooner."""
GIGABYTE: Final = 10**9
PERCENT_STEP: Final = 10
"""What is told changes so often, and with it the status."""


def stalls_at(download: Download) -> datetime | None:
    """When a download counts as stalled if nothing more comes; None for one that has ended."""
    return None if download.ended else download.moved_at + STALLED_AFTER


def is_downloading(arm: Arm, now: datetime) -> bool:
    """Whether bytes of its model come to any of an arm's pods."""
    return bool(_downloads(arm, now))


def describe_downloads(arm: Arm, now: datetime) -> str:
    """How far the slowest download is, as the end of a sentence; nothing without one.

    Rounded down, so that it does not change with every byte.

    >>> from datetime import UTC
    >>> from llmfleet.planning.snapshot import ObservedPod
    >>> now, gb = datetime(2026, 3, 1, 12, tzinfo=UTC), 10**9
    >>> facts = dict.fromkeys(("revision", "pod_ip", "unschedulable", "unschedulable_since",
    ...                        "waiting_reason", "waiting_message", "last_termination"))
    >>> got = Download(bytes_done=57 * gb, bytes_total=140 * gb, moved_at=now, ended=False)
    >>> pod = ObservedPod(name="p", uid="u", component="engine", phase="Running", ready=False,
    ...     deleting=False, created_at=now, restarts=0, running_since=now, download=got,
    ...     **facts)
    >>> describe_downloads(Arm(wanted=1, pods=(pod,)), now)
    '; 40 % of 140 GB are downloaded'
    """
    found = _downloads(arm, now)
    if not found:
        return ""
    least = min(found, key=lambda each: each.bytes_done)
    if least.bytes_total is None:
        done = least.bytes_done // GIGABYTE // PERCENT_STEP * PERCENT_STEP
        return f"; {done} GB are downloaded" if done else "; its model is being downloaded"
    share = min(100, 100 * least.bytes_done // max(1, least.bytes_total))
    total = max(1, round(least.bytes_total / GIGABYTE))
    return f"; {share // PERCENT_STEP * PERCENT_STEP} % of {total} GB are downloaded"


def _downloads(arm: Arm, now: datetime) -> list[Download]:
    running = (pod for pod in arm.live if not pod.ready and pod.running_since is not None)
    found = (pod.download for pod in running if pod.download is not None)
    return [each for each in found if (stalls := stalls_at(each)) is not None and now < stalls]
