"""What decisions need of pods and ReplicaSets, read from what the API server stores."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from llmfleet.api import clean_line, clean_text
from llmfleet.cluster.kinds import COMPONENT_LABEL, REVISION_LABEL
from llmfleet.planning.snapshot import JSON, ObservedPod, Termination


def parse_time(text: str | None) -> datetime | None:
    """An API timestamp (RFC 3339, UTC) as an aware datetime; None stays None."""
    return None if not text else datetime.fromisoformat(text)


def observe_pod(body: JSON) -> ObservedPod:
    """Trim a pod to the facts of ``ObservedPod``.

    The main container is the one named like the component (``engine``, ``router``), else the
    first. Sentences of the scheduler, the kubelet and the container are cleaned.
    """
    meta: JSON = body["metadata"]
    labels: JSON = meta.get("labels") or {}
    status: JSON = body.get("status") or {}
    component = str(labels.get(COMPONENT_LABEL, ""))
    conditions = {item["type"]: item for item in status.get("conditions") or []}
    scheduled: JSON = conditions.get("PodScheduled") or {}
    readiness: JSON = conditions.get("Ready") or {}
    refused = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
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
        unschedulable=_line(scheduled.get("message")) or "Unschedulable" if refused else None,
        unschedulable_since=parse_time(scheduled.get("lastTransitionTime")) if refused else None,
        waiting_reason=_line(waiting.get("reason")),
        waiting_message=_line(waiting.get("message")),
        restarts=int(container.get("restartCount") or 0),
        last_termination=_termination(state, container.get("lastState") or {}),
        running_since=parse_time((state.get("running") or {}).get("startedAt")),
        unready_since=parse_time(readiness.get("lastTransitionTime"))
        if readiness.get("status") == "False"
        else None,
    )


def quota_message(body: JSON) -> tuple[str, str] | None:
    """Revision and the ReplicaSet controller's sentence, when quota refused it a pod."""
    revision = (body["metadata"].get("labels") or {}).get(REVISION_LABEL)
    for condition in (body.get("status") or {}).get("conditions") or []:
        message = str(condition.get("message") or "")
        if (
            revision
            and condition.get("type") == "ReplicaFailure"
            and condition.get("status") == "True"
            and "exceeded quota" in message
        ):
            return str(revision), clean_line(message)
    return None


def _main_container(status: JSON, component: str) -> JSON:
    containers: list[JSON] = status.get("containerStatuses") or []
    for container in containers:
        if container.get("name") == component:
            return container
    return containers[0] if containers else {}


def _line(text: str | None) -> str | None:
    return None if text is None else clean_line(text)


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
