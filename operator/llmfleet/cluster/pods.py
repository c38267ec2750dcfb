"""What decisions need of pods and ReplicaSets, read from what the API server stores."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from llmfleet.api import clean_line, clean_text, shorten
from llmfleet.cluster.kinds import COMPONENT_LABEL, REVISION_LABEL
from llmfleet.planning.snapshot import (
    JSON,
    Controller,
    Hindrance,
    ObservedPod,
    ObservedReplicaSet,
    Termination,
)

LONGEST_SENTENCE: Final = 1000
"""Bytes of what a scheduler, a webhook or the API server says about a pod, in as many words as it
likes."""
ROUTER_CONTAINERS: Final = ("envoy", "agent")
"""Of a router pod (docs/contract.md, Router)."""
_NOT_BEGUN: Final = frozenset({"", "PodInitializing", "ContainerCreating"})
"""Why a container waits that is begun soon."""


def parse_time(text: str | None) -> datetime | None:
    """An API timestamp (RFC 3339, UTC) as an aware datetime; None stays None."""
    return None if not text else datetime.fromisoformat(text)


def observe_pod(body: JSON) -> ObservedPod:
    """Trim a pod to the facts of ``ObservedPod``.

    The main container is the one named like the component, else the first; of a router's two it is
    the one in trouble. Sentences of the scheduler, the kubelet and the container are cleaned.
    """
    meta: JSON = body["metadata"]
    labels: JSON = meta.get("labels") or {}
    spec: JSON = body.get("spec") or {}
    status: JSON = body.get("status") or {}
    component = str(labels.get(COMPONENT_LABEL, ""))
    conditions = {item["type"]: item for item in status.get("conditions") or []}
    readiness: JSON = conditions.get("Ready") or {}
    unschedulable, unschedulable_since = _unschedulable(conditions)
    container = _main_container(status, component)
    state: JSON = container.get("state") or {}
    waiting: JSON = state.get("waiting") or {}
    created = parse_time(meta["creationTimestamp"])
    if created is None:
        raise ValueError(f"pod {meta['name']} has no creationTimestamp")
    return ObservedPod(
        name=meta["name"],
        uid=meta["uid"],
        component=component,
        revision=labels.get(REVISION_LABEL),
        phase=str(status.get("phase") or "Pending"),
        ready=readiness.get("status") == "True",
        deleting=bool(meta.get("deletionTimestamp")),
        created_at=created,
        pod_ip=status.get("podIP"),
        unschedulable=_line(unschedulable),
        unschedulable_since=unschedulable_since,
        waiting_reason=_line(waiting.get("reason")),
        waiting_message=_line(waiting.get("message")),
        restarts=int(container.get("restartCount") or 0),
        container=container["name"] if container.get("name") in ROUTER_CONTAINERS else None,
        last_termination=_termination(state, container.get("lastState") or {}),
        running_since=parse_time((state.get("running") or {}).get("startedAt")),
        unready_since=_since(readiness) if readiness.get("status") == "False" else None,
        controller=_controller(meta),
        node=spec.get("nodeName"),
        node_lost=_is_node_lost(conditions),
        ends_at=parse_time(meta.get("deletionTimestamp")),
        reason=_line(status.get("reason")),
        message=_line(status.get("message")),
        gates=tuple(clean_line(str(gate["name"])) for gate in spec.get("schedulingGates") or []),
        sandbox_missing_since=_sandbox_missing_since(spec, conditions),
        hindrance=find_hindrance(status, container, readiness),
    )


def observe_replica_set(body: JSON) -> ObservedReplicaSet:
    """Trim a ReplicaSet to the facts of ``ObservedReplicaSet``."""
    refused = None
    for condition in (body.get("status") or {}).get("conditions") or []:
        failing = condition.get("type") == "ReplicaFailure" and condition.get("status") == "True"
        if failing and condition.get("reason") == "FailedCreate":
            refused = _sentence(condition.get("message")) or "the API server does not say why"
    return ObservedReplicaSet(
        uid=body["metadata"]["uid"], controller=_controller(body["metadata"]), refused=refused
    )


def _controller(meta: JSON) -> Controller | None:
    for ref in meta.get("ownerReferences") or []:
        if ref.get("controller"):
            return Controller(kind=str(ref["kind"]), name=str(ref["name"]), uid=str(ref["uid"]))
    return None


def _since(condition: JSON) -> datetime | None:
    return parse_time(condition.get("lastTransitionTime"))


def _unschedulable(conditions: JSON) -> tuple[str | None, datetime | None]:
    """The scheduler's sentence and since when, while it finds no node or fails (SchedulerError)."""
    scheduled: JSON = conditions.get("PodScheduled") or {}
    if scheduled.get("status") != "False" or scheduled.get("reason") == "SchedulingGated":
        return None, None
    sentence = _sentence(scheduled.get("message") or scheduled.get("reason"))
    return sentence or "it does not say why", _since(scheduled)


def _is_node_lost(conditions: JSON) -> bool:
    """Whether Kubernetes takes the pod's node for lost.

    The node controller takes the readiness away and leaves the kubelet's last words on containers,
    while the kubelet never says Ready=False without a reason. Some minutes later the taint manager
    evicts the pod, ready before or not. Pods say this much, so nobody has to read nodes.
    """
    readiness: JSON = conditions.get("Ready") or {}
    containers: JSON = conditions.get("ContainersReady") or {}
    taken_away = readiness.get("status") == "False" and not readiness.get("reason")
    disrupted: JSON = conditions.get("DisruptionTarget") or {}
    evicted = disrupted.get("status") == "True"
    return (taken_away and containers.get("status") == "True") or (
        evicted and disrupted.get("reason") == "DeletionByTaintManager"
    )


def _sandbox_missing_since(spec: JSON, conditions: JSON) -> datetime | None:
    sandbox: JSON = conditions.get("PodReadyToStartContainers") or {}
    return _since(sandbox) if spec.get("nodeName") and sandbox.get("status") == "False" else None


def _main_container(status: JSON, component: str) -> JSON:
    containers: list[JSON] = status.get("containerStatuses") or []
    for container in containers:
        if container.get("name") == component:
            return container
    # A router of an earlier release had one container, and was found above.
    own = [one for one in containers if one.get("name") in ROUTER_CONTAINERS]
    if component == "router" and own:
        return max(own, key=lambda one: (_trouble(one), one["name"] == "envoy"))
    return containers[0] if containers else {}


def _trouble(container: JSON) -> int:
    """How much a container's state says about why its pod is not ready; 0 when nothing."""
    state: JSON = container.get("state") or {}
    waiting: JSON = state.get("waiting") or {}
    if str(waiting.get("reason") or "") not in _NOT_BEGUN:
        return 3
    if state.get("terminated"):
        return 2
    ended = (container.get("lastState") or {}).get("terminated")
    return 1 if ended and not container.get("ready") else 0


def find_hindrance(status: JSON, main: JSON, readiness: JSON) -> Hindrance | None:
    """What keeps a pod from being ready beside its main container; what has failed comes first.

    Args:
        status: the pod's.
        main: the status of its main container.
        readiness: the condition Ready.
    """
    if readiness.get("status") == "True":
        return None
    runs = "running" in (main.get("state") or {})
    inits = status.get("initContainerStatuses") or []
    others = [each for each in status.get("containerStatuses") or [] if each is not main]
    found = [_hindered_by(each, runs, init=True) for each in inits]
    found += [_hindered_by(each, runs, init=False) for each in others]
    known = [each for each in found if each is not None]
    if not known and readiness.get("reason") == "ReadinessGatesNotReady":
        known = [Hindrance(text=_sentence(readiness.get("message")), failed=False)]
    return min(known, key=lambda each: not each.failed, default=None)


def _hindered_by(container: JSON, main_runs: bool, *, init: bool) -> Hindrance | None:
    """What a container beside the main one does; None for one that is well or not its turn yet."""
    state: JSON = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated")
    done = init and ended is not None and not ended.get("exitCode")
    if container.get("ready") or done:
        return None
    name = f"its container {clean_line(str(container.get('name')))}"
    end = ended or (container.get("lastState") or {}).get("terminated") or {}
    if end.get("exitCode") or (ended and not init):
        said = _sentence(end.get("message") or end.get("reason") or "it said nothing")
        text = f"{name} ended with exit code {int(end.get('exitCode') or 0)}: {said}"
        return Hindrance(text=text, failed=True)
    if str(waiting.get("reason") or "") not in _NOT_BEGUN:
        said = _sentence(waiting.get("message") or "it does not say why")
        return Hindrance(text=f"{name} waits ({_sentence(waiting['reason'])}): {said}", failed=True)
    takes_time = main_runs or "running" in state
    return Hindrance(text=f"{name} is not ready", failed=False) if takes_time else None


def _line(text: str | None) -> str | None:
    return None if text is None else clean_line(text)


def _sentence(text: Any) -> str:
    """What somebody says at length: cleaned, and without its middle if there is too much of it."""
    return shorten(clean_line(str(text or "")), LONGEST_SENTENCE)


def _termination(state: JSON, last_state: JSON) -> Termination | None:
    ended: Any = state.get("terminated") or last_state.get("terminated")
    if not ended:
        return None
    return Termination(
        exit_code=int(ended.get("exitCode") or 0),
        reason=_line(ended.get("reason")) or "",
        message=clean_text(str(ended.get("message") or "")),
        finished_at=parse_time(ended.get("finishedAt")),
    )
