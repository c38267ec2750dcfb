"""Whose a pod is, by its controllers and never by its labels, and whether it still holds anything.

Anybody who may make pods can put our labels on them. Ours are those whose ReplicaSet a Deployment
of ours controls; the Deployment is told by its uid, for its name comes again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from llmfleet.api import LLMDeployment
from llmfleet.planning.children.naming import is_ours
from llmfleet.planning.snapshot import ObjectKey, ObservedObject, ObservedPod, Snapshot

LOST_AFTER: Final = timedelta(seconds=30)
"""So long after its grace period a pod of a lost node counts no more (design, section 6 rule 5)."""


class Origin(Enum):
    """What a pod with our labels comes from."""

    DEPLOYMENT = auto()
    """A Deployment of ours that is there."""
    FORMER_DEPLOYMENT = auto()
    """One of the same name that is gone or going; the garbage collector ends the pod soon."""
    FOREIGN = auto()
    """Anything else: a pod made by hand, somebody else's Deployment."""


def find_origin(snapshot: Snapshot, key: ObjectKey, pod: ObservedPod) -> Origin:
    """Tell where a pod comes from.

    Args:
        snapshot: everything observed.
        key: of the Deployment that its labels name.
        pod: an engine or router pod.
    """
    made_by = pod.controller
    if made_by is None or not is_made_for(pod, key.name):
        return Origin.FOREIGN
    known = snapshot.replica_sets.get(made_by.uid)
    if known is None or known.controller is None:
        # Collected before its pods, or left behind on purpose until the Deployment adopts it again.
        return Origin.FORMER_DEPLOYMENT
    if (known.controller.kind, known.controller.name) != ("Deployment", key.name):
        return Origin.FOREIGN
    found = snapshot.objects.get(key)
    if found is None or found.uid != known.controller.uid:
        return Origin.FORMER_DEPLOYMENT
    return _origin_of(snapshot.deployment, found)


def is_made_for(pod: ObservedPod, deployment_name: str) -> bool:
    """Whether a ReplicaSet controls it, by whose name it is one of this Deployment's."""
    made_by = pod.controller
    return (
        made_by is not None
        and made_by.kind == "ReplicaSet"
        and made_by.name.startswith(f"{deployment_name}-")
    )


def released_at(pod: ObservedPod) -> datetime | None:
    """From when on a pod holds nothing of ours though it is still there; None = it holds it.

    A node that is lost never confirms that a pod has ended.
    """
    if pod.phase == "Unknown" or pod.reason == "NodeLost":
        return pod.created_at
    return pod.ends_at + LOST_AFTER if pod.node_lost and pod.ends_at is not None else None


def _origin_of(deployment: LLMDeployment, found: ObservedObject) -> Origin:
    if not is_ours(deployment, found):
        return Origin.FOREIGN
    return Origin.FORMER_DEPLOYMENT if found.deleting else Origin.DEPLOYMENT
