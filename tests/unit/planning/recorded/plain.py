"""A modelled cluster as plain JSON, which does not depend on how any version lays out its classes.

Reads and writes what both November's ``Fleet`` and today's have: the resource, its children, pods,
what routers serve, request counts, the clock. ``None`` and defaults are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmfleet.planning.snapshot import (
    JSON,
    Controller,
    ObjectKey,
    ObservedObject,
    ObservedPod,
    ObservedReplicaSet,
    RequestCounts,
    Termination,
)
from tests.unit.planning.fleet import SETTINGS, Fleet, engine_pod

HERE = Path(__file__).parent
STATES, FOREIGN, BODIES = HERE / "states", HERE / "foreign", HERE / "bodies.json"

POD_FACTS = {
    "name": "name", "uid": "uid", "component": "component", "revision": "revision",
    "phase": "phase", "ready": "ready", "deleting": "deleting", "createdAt": "created_at",
    "podIP": "pod_ip",
    "unschedulable": "unschedulable", "unschedulableSince": "unschedulable_since",
    "waitingReason": "waiting_reason", "waitingMessage": "waiting_message",
    "restarts": "restarts", "runningSince": "running_since", "unreadySince": "unready_since",
}  # fmt: skip
"""Key in a file → field of an observed pod."""
UNSAID = (None, False, 0)
"""Values of a pod's facts that are left out."""


def as_text(when: datetime) -> str:
    """A time as the API writes it."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_time(text: str) -> datetime:
    """A time read back."""
    return datetime.fromisoformat(text)


def dump(world: Fleet, bodies: dict[str, JSON]) -> JSON:
    """The whole cluster; bodies of children are added to ``bodies`` and named in the answer."""
    counts = world.requests
    found: JSON = {
        "now": as_text(world.now),
        "counter": world.counter,
        "broken": sorted(world.broken),
        "settings": {"crdOutdated": world.settings.crd_outdated},
        "resource": world.raw,
        "objects": [_dump_object(each, bodies) for _, each in sorted(world.objects.items())],
        "pods": [_dump_pod(pod) for _, pod in sorted(world.pods.items())],
        "routers": {
            name: {"trafficGeneration": generation, "split": split}
            for name, (generation, split) in sorted(world.served.items())
        },
        "requests": None
        if counts is None
        else {name: _dump_counts(world, each) for name, each in counts.items()},
    }
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def load(found: JSON, bodies: Mapping[str, JSON], kind: type[Fleet] = Fleet) -> Fleet:
    """The cluster as it was when it was recorded, as a ``Fleet`` of that kind."""
    found = json.loads(json.dumps(found))
    counts = found["requests"]
    times = {as_time(each["asOf"]) for each in (counts or {}).values()}
    objects = [_load_object(each, bodies) for each in found["objects"]]
    world = kind(
        raw=found["resource"],
        now=as_time(found["now"]),
        broken=frozenset(found["broken"]),
        settings=replace(SETTINGS, crd_outdated=found["settings"]["crdOutdated"]),
        objects={each.key: each for each in objects},
        pods={facts["name"]: _load_pod(facts) for facts in found["pods"]},
        served={
            name: (each["trafficGeneration"], each["split"])
            for name, each in found["routers"].items()
        },
        requests=None
        if counts is None
        else {name: _load_counts(each) for name, each in counts.items()},
        requests_as_of=min(times - {as_time(found["now"])}, default=None),
        counter=found["counter"],
    )
    for name, pod in world.pods.items():
        world.pods[name] = replace(pod, controller=_controller(world, name.rpartition("-")[0]))
    return world


def _controller(world: Fleet, deployment: str) -> Controller:
    """The ReplicaSet that made a pod; November knew pods by their labels alone."""
    if any(key.kind == "Deployment" and key.name == deployment for key in world.objects):
        return world.controller(deployment)
    former = Controller(kind="Deployment", name=deployment, uid=f"former-{deployment}")
    left = ObservedReplicaSet(uid=f"rs-{former.uid}", controller=former, refused=None)
    world.replica_sets.setdefault(left.uid, left)
    return Controller(kind="ReplicaSet", name=f"{deployment}-0", uid=left.uid)


def read_bodies() -> dict[str, JSON]:
    """The children that states share."""
    return json.loads(BODIES.read_text())  # type: ignore[no-any-return]


def written(value: Any, depth: int = 3, indent: int = 0) -> str:
    """JSON with its outer levels one entry a line, so that a change of one fact is one line."""
    if depth == 0 or not isinstance(value, dict | list) or not value:
        return json.dumps(value, ensure_ascii=False)
    pad = " " * (indent + 1)
    if isinstance(value, list):
        parts = [pad + written(each, 0) for each in value]
        return "[\n" + ",\n".join(parts) + "\n" + " " * indent + "]"
    parts = [
        f"{pad}{json.dumps(key)}: {written(each, depth - 1, indent + 1)}"
        for key, each in value.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"


def _dump_object(found: ObservedObject, bodies: dict[str, JSON]) -> JSON:
    digest = hashlib.sha256(json.dumps(found.body, sort_keys=True).encode()).hexdigest()[:8]
    reference = f"{found.key.kind}/{found.key.name}/{digest}"
    bodies[reference] = found.body
    return {
        "uid": found.uid,
        "resourceVersion": found.resource_version,
        **({"owner": found.owner_uid} if found.owner_uid else {}),
        **({"deleting": True} if found.deleting else {}),
        "body": reference,
    }


def _load_object(found: JSON, bodies: Mapping[str, JSON]) -> ObservedObject:
    body = bodies[found["body"]]
    key = ObjectKey(
        api_version=body["apiVersion"], kind=body["kind"], name=body["metadata"]["name"]
    )
    return ObservedObject(
        key=key,
        uid=found["uid"],
        resource_version=found["resourceVersion"],
        owner_uid=found.get("owner"),
        deleting=found.get("deleting", False),
        body=body,
    )


def _dump_pod(pod: ObservedPod) -> JSON:
    facts = {key: getattr(pod, name) for key, name in POD_FACTS.items()}
    body: JSON = {
        key: as_text(each) if isinstance(each, datetime) else each
        for key, each in facts.items()
        if each not in UNSAID
    }
    end = pod.last_termination
    if end is not None:
        body["lastTermination"] = {
            "exitCode": end.exit_code,
            "reason": end.reason,
            "message": end.message,
            "finishedAt": as_text(end.finished_at) if end.finished_at else None,
        }
    return body


def _load_pod(facts: JSON) -> ObservedPod:
    end = facts.pop("lastTermination", None)
    values = {
        POD_FACTS[key]: as_time(each) if key.endswith(("At", "Since")) else each
        for key, each in facts.items()
    }
    pod = engine_pod(**{"revision": None, **values})
    if end is None:
        return pod
    termination = Termination(
        exit_code=end["exitCode"],
        reason=end["reason"],
        message=end["message"],
        finished_at=as_time(end["finishedAt"]) if end["finishedAt"] else None,
    )
    return replace(pod, last_termination=termination)


def _dump_counts(world: Fleet, counts: RequestCounts) -> JSON:
    return {
        "total": counts.total,
        "failed": counts.failed,
        "asOf": as_text(world.requests_as_of or world.now),
        "looks": counts.looks,
    }


def _load_counts(found: JSON) -> RequestCounts:
    return RequestCounts(
        total=found["total"],
        failed=found["failed"],
        looks=tuple((total, failed) for total, failed in found["looks"]),
    )
