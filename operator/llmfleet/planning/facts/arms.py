"""Arms: what is observed of each revision, its pods above all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from llmfleet.planning.children.naming import deployment_key
from llmfleet.planning.facts.pods import Origin, find_origin, released_at
from llmfleet.planning.snapshot import ObjectKey, ObservedObject, ObservedPod, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What is observed of one revision."""

    wanted: int | None
    """Replicas its Deployment has now; None without a Deployment of ours."""
    pods: tuple[ObservedPod, ...]
    """Its Deployment's that have not ended; those being deleted still hold accelerators."""
    left: tuple[ObservedPod, ...] = ()
    """Those of a former Deployment of this revision: they hold accelerators until they are gone,
    and are neither counted as capacity nor judged."""
    failed: tuple[ObservedPod, ...] = ()
    """Its Deployment's that their nodes ended or never began (phase Failed): they hold nothing."""
    refused: str | None = None
    """The API server's sentence while it refuses its Deployment pods."""

    @property
    def live(self) -> tuple[ObservedPod, ...]:
        """Pods that are not being deleted."""
        return tuple(pod for pod in self.pods if not pod.deleting)

    @property
    def ready(self) -> int:
        """Pods that take requests and will stay."""
        return sum(pod.ready for pod in self.live)

    @property
    def present(self) -> int:
        """Pods that hold accelerators."""
        return len(self.pods) + len(self.left)


NO_ARM = Arm(wanted=None, pods=())


def read_arms(
    snapshot: Snapshot,
    ours: Mapping[ObjectKey, ObservedObject],
    stored: Iterable[str],
    now: datetime,
) -> dict[str, Arm]:
    """The arms by revision hash: all that has a pod, a Deployment, a Service or a history.

    Args:
        snapshot: everything observed.
        ours: the objects in it that are ours.
        stored: the hashes that have a ControllerRevision.
        now: the time of the decision, which tells whether a lost pod still counts.
    """
    name = snapshot.deployment.metadata.name
    engines: dict[str, list[tuple[Origin, ObservedPod]]] = {}
    for pod in snapshot.pods:
        if pod.component != "engine" or not pod.revision:
            continue
        origin = find_origin(snapshot, deployment_key(name, pod.revision), pod)
        if origin is not Origin.FOREIGN:
            engines.setdefault(pod.revision, []).append((origin, pod))
    prefix = f"{name}-rev-"
    hashes = {*engines, *stored}
    hashes |= {
        found.key.name.removeprefix(prefix)
        for found in ours.values()
        if found.key.kind in {"Deployment", "Service"} and found.key.name.startswith(prefix)
    }
    return {
        revision: _arm(
            snapshot, ours.get(deployment_key(name, revision)), engines.get(revision, []), now
        )
        for revision in sorted(hashes)
    }


def refusal(snapshot: Snapshot, deployment: ObservedObject | None) -> str | None:
    """The API server's sentence while it refuses a Deployment pods."""
    if deployment is None:
        return None
    said = (
        each.refused
        for each in snapshot.replica_sets.values()
        if each.controller is not None and each.controller.uid == deployment.uid
    )
    return min((each for each in said if each is not None), default=None)


def _arm(
    snapshot: Snapshot,
    found: ObservedObject | None,
    pods: Iterable[tuple[Origin, ObservedPod]],
    now: datetime,
) -> Arm:
    holding: dict[Origin, list[ObservedPod]] = {each: [] for each in Origin}
    failed = []
    for origin, pod in pods:
        if pod.phase == "Failed" and origin is Origin.DEPLOYMENT:
            failed.append(pod)
        elif pod.phase not in {"Failed", "Succeeded"}:
            released = released_at(pod)
            if released is None or now < released:
                holding[origin].append(pod)
    there = found is not None and not found.deleting
    replicas = (found.body.get("spec") or {}).get("replicas", 1) if found is not None else 0
    return Arm(
        wanted=int(replicas) if there else None,
        pods=tuple(holding[Origin.DEPLOYMENT]),
        left=tuple(holding[Origin.FORMER_DEPLOYMENT]),
        failed=tuple(failed),
        refused=refusal(snapshot, found) if there and replicas else None,
    )
