"""New pods of the same revision, one by one: what ``restart`` asks for."""

from __future__ import annotations

from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.state import Restarting
from llmfleet.planning.snapshot import ObservedPod


def old_pods(facts: Facts, state: Restarting) -> tuple[ObservedPod, ...]:
    """Pods made before the restart was asked for; those on their way out count until they end."""
    return tuple(pod for pod in facts.arm(state.revision).pods if pod.created_at < state.since)


def is_restarted(facts: Facts, state: Restarting) -> bool:
    """Whether no old pod is left and all that are wanted are ready."""
    return not old_pods(facts, state) and facts.arm(state.revision).ready >= facts.replicas


def wanted_replicas(facts: Facts, state: Restarting) -> int:
    """Pods of the revision meanwhile: one more where maxSurge allows, so a new one is Ready first.

    An old one that drains beside them is one more for that time.
    """
    lives = any(not pod.deleting for pod in old_pods(facts, state))
    surge = facts.deployment.spec.rollout.surge_replicas(facts.replicas)
    return facts.replicas + int(facts.replicas > 0 and lives and surge > 0)


def next_pod(facts: Facts, state: Restarting) -> ObservedPod | None:
    """The old pod that goes now: one at a time, and none that is ready before its replacement is.

    The oldest first; one that serves nothing anyway before the others.
    """
    arm = facts.arm(state.revision)
    old = [pod for pod in old_pods(facts, state) if not pod.deleting]
    if not old or any(pod.deleting for pod in arm.pods) or facts.replicas == 0:
        return None
    first = min(old, key=lambda pod: (pod.ready, pod.created_at, pod.name))
    enough = arm.ready >= wanted_replicas(facts, state)
    return first if enough or not first.ready else None
