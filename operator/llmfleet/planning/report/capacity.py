"""Whether all engine pods found room, in the scheduler's own words."""

from __future__ import annotations

from datetime import datetime, timedelta

from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.diagnosis import (
    UNSCHEDULABLE_SECONDS,
    waiting_for_capacity,
    waiting_since,
)
from llmfleet.planning.snapshot import ObservedPod, Snapshot
from llmfleet.planning.stage import ConditionValue, Stage

REFUSAL_LASTS = timedelta(seconds=UNSCHEDULABLE_SECONDS)


def decide_capacity(snapshot: Snapshot, facts: Facts, now: datetime) -> Stage:
    """The condition CapacityAvailable, and when a pod that waits begins to count."""
    pods = [pod for arm in facts.arms.values() for pod in arm.live]
    waiting = [pod for pod in pods if waiting_for_capacity(pod)]
    return Stage(
        conditions=(_condition(snapshot, facts, waiting, now),),
        due=tuple(_refused_since(pod) + REFUSAL_LASTS for pod in waiting),
    )


def ready_times(facts: Facts, deadline_seconds: int) -> tuple[datetime, ...]:
    """When each running pod that is not ready counts as one that never will be."""
    seconds = timedelta(seconds=deadline_seconds)
    pods = [pod for arm in facts.arms.values() for pod in arm.live if not pod.ready]
    return tuple(since + seconds for pod in pods if (since := waiting_since(pod)) is not None)


def _condition(
    snapshot: Snapshot, facts: Facts, waiting: list[ObservedPod], now: datetime
) -> ConditionValue:
    refused = {
        name: text for name, text in snapshot.quota_messages.items() if facts.arm(name).wanted
    }
    late = [pod for pod in waiting if now >= _refused_since(pod) + REFUSAL_LASTS]
    if refused:
        name, text = min(refused.items())
        return _value("False", "QuotaExceeded", f"quota refuses pods of revision {name}: {text}")
    if late:
        first = min(late, key=lambda pod: pod.name)
        wait = "one engine pod waits" if len(late) == 1 else f"{len(late)} engine pods wait"
        return _value("False", "Unschedulable", f"{wait} for room: {first.unschedulable}")
    return _value("True", "Scheduled", "every engine pod found room")


def _refused_since(pod: ObservedPod) -> datetime:
    return pod.unschedulable_since or pod.created_at


def _value(status: str, reason: str, message: str) -> ConditionValue:
    return ConditionValue(type="CapacityAvailable", status=status, reason=reason, message=message)
