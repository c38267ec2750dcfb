"""Pods that do not come: for want of room (CapacityAvailable), or, of routers, for any reason.

While CapacityAvailable is False the rollout's clock stands still: the wait is announced, and has no
end.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from llmfleet.planning.clock import format_time
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.report.situation import count
from llmfleet.planning.rollout.diagnosis import (
    GRACE,
    UNSCHEDULABLE_SECONDS,
    diagnose_failed,
    diagnose_pod,
    failed_times,
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
    times += failed_times(facts.routers.failed)
    times += [when for pod in _ending(facts) if (when := _overdue_at(pod)) is not None]
    return Stage(conditions=(_decide(facts, now),), due=(*facts.release_times, *times))


def describe_overdue(facts: Facts, now: datetime) -> str:
    """Engine pods that should have ended, and hold what they have, as the end of a sentence."""
    found = [
        pod for pod in _ending(facts) if (at := _overdue_at(pod)) is not None and now >= at
    ]  # fmt: skip
    first = min(found, key=lambda pod: pod.name, default=None)
    if first is None or first.ends_at is None:
        return ""
    where = f" on node {first.node}" if first.node is not None else ""
    others = f" and {count(len(found) - 1, 'other')}" if len(found) > 1 else ""
    return (
        f"; engine pod {first.name}{where}{others} should have ended at"
        f" {format_time(first.ends_at)}, and still {'hold' if others else 'holds'} accelerators:"
        f" look at {'that node' if where else 'its finalizers'}"
    )


def describe_routers(facts: Facts, now: datetime) -> str | None:
    """Why a router pod does not come, as a sentence; None when all do, or are about to.

    One that runs waits for a first revision, and is not told of its past. Lack of room is another
    condition's, unless clients get no answer for it.
    """
    routers = facts.routers
    for pod in facts.routers.missing:
        past = count_ends(pod) if pod.running_since is not None else 0
        found = diagnose_pod(pod, now, ROUTER_SECONDS, past)
        if found is not None and found.reason != "NeverReady":
            return found.message
    if routers.ready == 0 and routers.refused is not None:
        return f"the API server does not admit router pods: {routers.refused}"
    waiting = next((pod for pod in routers.missing if pod.unschedulable is not None), None)
    if routers.ready == 0 and waiting is not None:
        return f"router pod {waiting.name} waits for room: {waiting.unschedulable}"
    if routers.ready >= facts.deployment.spec.router.replicas:
        return None
    ended = diagnose_failed(routers.failed, now)
    return None if ended is None else ended.message


def _ending(facts: Facts) -> list[ObservedPod]:
    return [pod for arm in facts.arms.values() for pod in (*arm.pods, *arm.left) if pod.deleting]


def _overdue_at(pod: ObservedPod) -> datetime | None:
    """From when on a pod that is being deleted is told of; its node ends it in its grace period."""
    return None if pod.ends_at is None else pod.ends_at + GRACE


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
    return _value("True", "Scheduled", "no pod has waited for room for 10 s")


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
