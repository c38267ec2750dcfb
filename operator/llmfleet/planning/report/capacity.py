"""Pods that do not come: for want of room (CapacityAvailable), or, of routers, for any reason.

While CapacityAvailable is False the rollout's clock stands still: the wait is announced, and has no
end.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from llmfleet.planning.facts.read import Facts
from llmfleet.planning.report.situation import count
from llmfleet.planning.rollout.diagnosis import (
    UNSCHEDULABLE_SECONDS,
    diagnose_pod,
    pod_times,
    waiting_for_capacity,
)
from llmfleet.planning.rollout.ends import count_ends
from llmfleet.planning.snapshot import ObservedPod
from llmfleet.planning.stage import ConditionValue, Stage

ROUTER_SECONDS: Final = 10**9
"""Routers have no deadline: without a revision to serve they are never ready."""


def decide_capacity(facts: Facts, now: datetime) -> Stage:
    """The condition CapacityAvailable, and when lost pods give their accelerators back."""
    times = [when for pod in facts.routers.missing for when in pod_times(pod)]
    return Stage(conditions=(_decide(facts, now),), due=(*facts.release_times, *times))


def describe_routers(facts: Facts, now: datetime) -> str | None:
    """Why a router pod does not come, as a sentence; None when all do, or are about to.

    One that runs waits for a first revision, and is not told of its past.
    """
    for pod in facts.routers.missing:
        past = count_ends(pod) if pod.running_since is not None else 0
        found = diagnose_pod(pod, now, ROUTER_SECONDS, past)
        if found is not None and found.reason != "NeverReady":
            return found.message
    return None


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
    engines = [pod for arm in facts.arms.values() for pod in arm.live]
    for pods in (engines, facts.routers.missing):
        waiting = [
            pod
            for pod in pods
            if waiting_for_capacity(pod)
            and now >= (pod.unschedulable_since or pod.created_at) + seconds
        ]
        if waiting:
            return _waiting(waiting)
    return _value("True", "Scheduled", "every engine pod found room")


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
    kind = f"{first.component} pod"
    many = f"one {kind}" if len(pods) == 1 else count(len(pods), kind)
    if not first.gates:
        waits = "waits" if len(pods) == 1 else "wait"
        text = f"{many} {waits} for room: {first.unschedulable}"
        return _value("False", "Unschedulable", text)
    are, gate = "is" if len(pods) == 1 else "are", ", ".join(first.gates)
    text = f"{many} {are} held by the scheduling gate {gate}, until whoever set it takes it away"
    return _value("False", "SchedulingGated", text)


def _value(status: str, reason: str, message: str) -> ConditionValue:
    return ConditionValue(type="CapacityAvailable", status=status, reason=reason, message=message)
