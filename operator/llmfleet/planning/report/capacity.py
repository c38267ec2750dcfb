"""CapacityAvailable: whether all pods found room, in the words of whoever has none for them.

While it is False the rollout's clock stands still: the wait is announced, and has no end.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from llmfleet.planning.facts.read import Facts
from llmfleet.planning.report.situation import count
from llmfleet.planning.rollout.diagnosis import UNSCHEDULABLE_SECONDS, waiting_for_capacity
from llmfleet.planning.snapshot import ObservedPod
from llmfleet.planning.stage import ConditionValue, Stage


def decide_capacity(facts: Facts, now: datetime) -> Stage:
    """The condition CapacityAvailable, and when lost pods give their accelerators back."""
    return Stage(conditions=(_decide(facts, now),), due=facts.release_times)


def _decide(facts: Facts, now: datetime) -> ConditionValue:
    """The condition, from what the API server, the scheduler and scheduling gates say.

    Args:
        facts: what is observed.
        now: the time of the decision; a pod may wait for a node for 10 s before it is told.
    """
    refused = _refused(facts)
    if refused is not None:
        return refused
    seconds = timedelta(seconds=UNSCHEDULABLE_SECONDS)
    waiting = [
        pod
        for arm in facts.arms.values()
        for pod in arm.live
        if waiting_for_capacity(pod)
        and now >= (pod.unschedulable_since or pod.created_at) + seconds
    ]
    if not waiting:
        return _value("True", "Scheduled", "every engine pod found room")
    return _waiting(waiting)


def _refused(facts: Facts) -> ConditionValue | None:
    """What the API server says to those who make pods, engines first."""
    refused = {
        f"pods of revision {name}": arm.refused
        for name, arm in facts.arms.items()
        if arm.refused is not None
    }
    if facts.routers.refused is not None:
        refused["router pods"] = facts.routers.refused
    for which, sentence in refused.items():
        if "exceeded quota" in sentence:
            return _value("False", "QuotaExceeded", f"quota refuses {which}: {sentence}")
        text = f"the API server does not admit {which}: {sentence}"
        return _value("False", "AdmissionRefused", text)
    return None


def _waiting(pods: list[ObservedPod]) -> ConditionValue:
    first = min(pods, key=lambda pod: (bool(pod.gates), pod.name))
    many = "one engine pod" if len(pods) == 1 else count(len(pods), "engine pod")
    if not first.gates:
        waits = "waits" if len(pods) == 1 else "wait"
        text = f"{many} {waits} for room: {first.unschedulable}"
        return _value("False", "Unschedulable", text)
    are, gate = "is" if len(pods) == 1 else "are", ", ".join(first.gates)
    text = f"{many} {are} held by the scheduling gate {gate}, until whoever set it takes it away"
    return _value("False", "SchedulingGated", text)


def _value(status: str, reason: str, message: str) -> ConditionValue:
    return ConditionValue(type="CapacityAvailable", status=status, reason=reason, message=message)
