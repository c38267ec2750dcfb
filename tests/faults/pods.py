"""Pods as the Deployment controller makes them, and their statuses as a kubelet reports them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

JSON = dict[str, Any]


def build_replica_set(name: str, deployment: JSON, template: str) -> JSON:
    """What stands between a Deployment and the pods of its present template.

    It remembers the template as pods do, for the API server completes what it stores.
    """
    spec = deployment["spec"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "labels": spec["template"]["metadata"]["labels"],
            "annotations": {"template": template},
            "ownerReferences": [_controller("Deployment", deployment)],
        },
        "spec": {
            "replicas": spec.get("replicas", 1),
            "selector": spec["selector"],
            "template": spec["template"],
        },
    }


def build_pod(name: str, replica_set: JSON, template: str) -> JSON:
    """A pod of a ReplicaSet; it remembers the template that it was made from."""
    wanted = replica_set["spec"]["template"]
    annotations = wanted["metadata"].get("annotations") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": wanted["metadata"]["labels"],
            "annotations": {**annotations, "template": template},
            "ownerReferences": [_controller("ReplicaSet", replica_set)],
        },
        "spec": {**wanted["spec"], "nodeName": "node"},
    }


def _controller(kind: str, owner: JSON) -> JSON:
    meta = owner["metadata"]
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
    }


def component(pod: JSON) -> str:
    """``engine`` or ``router``."""
    return str(pod["metadata"]["labels"].get("llmfleet.dev/component"))


def owner(body: JSON) -> str:
    """uid of the object's first owner, empty when it has none."""
    owners = body["metadata"].get("ownerReferences") or [{"uid": ""}]
    return str(owners[0]["uid"])


def is_ready(pod: JSON) -> bool:
    """Whether the kubelet reports it as ready."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def ready_status(pod: JSON, address: str, *, ready: bool) -> JSON:
    """Running at an address, ready or not yet."""
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": _now()},
            {"type": "Ready", "status": str(ready), "lastTransitionTime": _now()},
        ],
        "containerStatuses": [
            {
                **container,
                "ready": ready, "restartCount": 0, "started": True,
                "state": {"running": {"startedAt": _now()}}, "lastState": {},
            }
            for container in _containers(pod)
        ],
    }  # fmt: skip


def crashing_status(pod: JSON) -> JSON:
    """Ended several times, with the runtime's termination message."""
    words = {"reason": "ModelNotFound", "message": "no such model: broken", "retriable": False}
    ended = {
        "exitCode": 1, "reason": "Error", "message": json.dumps(words),
        "startedAt": _now(), "finishedAt": _now(),
    }  # fmt: skip
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}
    return {
        **ready_status(pod, "10.0.0.1", ready=False),
        "containerStatuses": [
            {
                **container,
                "ready": False, "restartCount": 3, "started": False,
                "state": {"waiting": waiting}, "lastState": {"terminated": ended},
            }
            for container in _containers(pod)
        ],
    }  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _containers(pod: JSON) -> list[JSON]:
    return [
        {"name": one["name"], "image": one["image"], "imageID": one["image"]}
        for one in pod["spec"]["containers"]
    ]
