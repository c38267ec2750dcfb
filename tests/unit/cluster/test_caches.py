"""What the caches keep of a child, and what of it wakes nobody."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest

from llmfleet.cluster.caches import Caches
from llmfleet.cluster.client import ApiClient
from llmfleet.planning.snapshot import ObjectKey

JSON = dict[str, Any]
OWNER = ("a", "chat")
KEY = ObjectKey(api_version="apps/v1", kind="Deployment", name="chat-router")
DEPLOYMENT: JSON = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "namespace": "a",
        "name": "chat-router",
        "uid": "u1",
        "resourceVersion": "5",
        "labels": {"llmfleet.dev/deployment": "chat"},
        "annotations": {"deployment.kubernetes.io/revision": "1", "llmfleet.dev/digest": "d"},
        "managedFields": [
            {"manager": "llmfleet", "operation": "Apply", "fieldsV1": {"f:spec": {}}},
            {"manager": "controllers", "operation": "Update", "subresource": "status"},
        ],
    },
    "spec": {"replicas": 2},
    "status": {"readyReplicas": 1},
}


class Held:
    """Caches that no reflector fills, and the owners they woke."""

    def __init__(self) -> None:
        self.woken: list[tuple[str, str]] = []
        self.caches = Caches(cast("ApiClient", None), [], self.woken.append)

    def put(self, **changes: Any) -> None:
        """What a watch would."""
        body = copy.deepcopy(DEPLOYMENT) | changes
        version = str(5 + len(changes))
        body["metadata"]["resourceVersion"] = version
        store = self.caches._children[next(k for k in self.caches._children if k.kind == KEY.kind)]
        store.put(body)


@pytest.fixture
async def held() -> Held:
    return Held()


async def test_child_when_kept_then_intent_and_version_come_back_without_its_status(
    held: Held,
) -> None:
    held.caches.written(DEPLOYMENT)
    child = held.caches.children(OWNER)[KEY]
    assert child.resource_version == child.body["metadata"]["resourceVersion"] == "5"
    assert child.body["spec"] == DEPLOYMENT["spec"]
    assert "status" not in child.body
    assert child.body["metadata"]["annotations"] == {"llmfleet.dev/digest": "d"}
    assert [each["manager"] for each in child.body["metadata"]["managedFields"]] == ["llmfleet"]
    assert held.woken == []


async def test_child_when_only_its_status_changes_then_nobody_is_woken(held: Held) -> None:
    held.put()
    assert held.woken == [OWNER]
    held.put(status={"readyReplicas": 2})
    assert held.woken == [OWNER]
    assert held.caches.children(OWNER)[KEY].resource_version == "6"
    held.put(status={"readyReplicas": 2}, spec={"replicas": 3})
    assert held.woken == [OWNER, OWNER]


async def test_replica_set_when_it_comes_or_refuses_then_its_owner_is_woken_and_not_when_it_scales(
    held: Held,
) -> None:
    owner = {"kind": "Deployment", "name": "chat-router", "uid": "u1", "controller": True}
    meta = {**DEPLOYMENT["metadata"], "name": "chat-router-6b", "uid": "u2"}
    body: JSON = {"metadata": {**meta, "ownerReferences": [owner]}, "status": {"replicas": 0}}
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
    told: list[JSON] = [{"replicas": 0}, {"replicas": 2}, {"conditions": [failure]}]
    woken = []
    for version, status in enumerate(told):
        body["metadata"]["resourceVersion"] = str(version)
        body["status"] = status
        held.caches._replica_sets.put(body)
        woken.append(len(held.woken))
    assert woken == [1, 1, 2]
    (found,) = held.caches.replica_sets(OWNER).values()
    assert (found.uid, found.controller and found.controller.uid) == ("u2", "u1")
    assert found.refused is not None
