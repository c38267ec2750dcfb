"""What the applier remembers of children; the API server and the caches are played."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from llmfleet.cluster.applying import Applier
from llmfleet.cluster.caches import observed_object
from llmfleet.planning.plan import Child, ChildMode, Plan

JSON = dict[str, Any]
META = {"name": "chat", "namespace": "a", "uid": "parent", "resourceVersion": "7"}


def service(port: int, uid: str = "") -> JSON:
    meta: JSON = {"name": "chat", "namespace": "a", "labels": {"llmfleet.dev/deployment": "chat"}}
    if uid:
        meta |= {"uid": uid, "resourceVersion": "3"}
    spec = {"ports": [{"port": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


class Cluster:
    """An API server with a webhook that sets every port to 99, and whoever is told of writes."""

    def __init__(self) -> None:
        self.writes = 0
        self.live = {"service": service(99, "child")}

    async def apply(self, kind: Any, body: JSON, *, resource_version: str) -> JSON:
        del kind, body, resource_version
        self.writes += 1
        return copy.deepcopy(self.live["service"])

    async def record(self, raw: JSON, plan: Plan, status: JSON | None) -> JSON:
        del plan, status
        return raw

    async def publish(self, *_: Any) -> None:
        pass

    def differs(self, *_: Any) -> bool:
        return False

    def written(self, body: JSON) -> None:
        pass

    def refused(self, *_: Any) -> bool:
        return False

    def forget(self, uid: str) -> None:
        pass

    def snapshot(self) -> Any:
        objects = [observed_object(body) for body in self.live.values()]
        return SimpleNamespace(
            raw={"metadata": META, "status": {"phase": "Healthy"}},
            objects={each.key: each for each in objects},
            refusals={},
            from_event=False,
            routers_assumed=False,
        )


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def applier(cluster: Cluster) -> Applier:
    return Applier(*[cluster] * 5)  # type: ignore[arg-type]  # it plays them all


def plan() -> Plan:
    intent = service(80)
    child = Child(key=observed_object(service(80, "x")).key, mode=ChildMode.APPLY, body=intent)
    return Plan(status={"phase": "Healthy"}, children=(child,))


async def test_child_when_the_server_stores_it_otherwise_then_it_is_written_once(
    cluster: Cluster, applier: Applier
) -> None:
    for _ in range(3):
        await applier.apply(cluster.snapshot(), plan())
    assert cluster.writes == 1


@pytest.mark.parametrize("how", ["the child is gone", "its LLMDeployment is gone"])
async def test_child_when_it_is_gone_then_nothing_is_remembered_of_it(
    cluster: Cluster, applier: Applier, how: str
) -> None:
    await applier.apply(cluster.snapshot(), plan())
    assert "child" in str(applier._settled)
    if how == "the child is gone":
        cluster.live.clear()
        await applier.apply(cluster.snapshot(), Plan(status={"phase": "Healthy"}))
    else:
        applier.forget("parent")
    assert applier._settled == {}
