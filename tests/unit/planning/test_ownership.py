"""Pods count with their Deployment only, told by who controls them and never by their labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmfleet.planning.children.naming import deployment_key, memory_key, router_key
from llmfleet.planning.facts.read import Facts, read_facts
from llmfleet.planning.snapshot import Controller, ObservedReplicaSet
from tests.unit.planning.builders import UID, silence
from tests.unit.planning.canaries import canary, rejected, split
from tests.unit.planning.fleet import Fleet, engine_pod, hash_of, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import said
from tests.unit.planning.test_rollout import turn


def facts(world: Fleet) -> Facts:
    return read_facts(world.snapshot(), 2, world.now)


def served(**spec: Any) -> tuple[Fleet, str]:
    world = Fleet(resource(**spec))
    world.settle()
    return world, hash_of(world.raw)


@pytest.mark.parametrize("strategy", ["RollingUpdate", "Canary"])
def test_revision_when_a_deleted_deployment_left_ready_pods_then_its_next_one_waits_for_its_own(
    strategy: str,
) -> None:
    policy: dict[str, Any] = {"strategy": strategy, "maxSurge": 1, "scaleDownDelay": "0s"}
    steps = {"steps": [{"setWeight": 50}]} if strategy == "Canary" else {}
    world, first = served(rollout={**policy, **steps})
    world.lingering = 60
    world.edit(model=model("two"))
    second = hash_of(world.raw)
    for _ in range(40):
        turn(world)
        if split(world) == {second: 100} and first not in world.replicas():
            break
    assert world.ready(first) > 0

    world.edit(model=model("one"))
    world.reconcile()
    assert first in world.replicas()
    assert split(world) == {second: 100}
    world.reconcile()
    assert split(world) == {second: 100}
    assert facts(world).arm(first).ready == 0

    world.lingering = 0
    world.settle()
    assert split(world) == {first: 100}
    assert world.condition("Ready")["status"] == "True"


def test_pods_when_their_deployment_is_gone_then_they_hold_their_accelerators_and_no_more() -> None:
    world, old = served(replicas=2)
    pods = sorted(name for name, pod in world.pods.items() if pod.revision == old)
    del world.objects[deployment_key("chat", old)]

    arm = facts(world).arm(old)
    assert (arm.wanted, arm.ready, arm.pods) == (None, 0, ())
    assert [pod.name for pod in arm.left] == pods
    assert facts(world).present_besides("another") == 2
    assert facts(world).present_besides(old) == 2

    world.replica_sets.clear()  # the garbage collector was there, and has not yet ended its pods
    assert [pod.name for pod in facts(world).arm(old).left] == pods
    assert facts(world).arm(old).ready == 0


def test_pods_when_their_deployment_is_being_deleted_then_they_are_no_capacity() -> None:
    world, old = served(replicas=2)
    key = deployment_key("chat", old)
    world.objects[key] = replace(world.objects[key], deleting=True)
    arm = facts(world).arm(old)
    assert (arm.wanted, arm.ready, len(arm.left)) == (None, 0, 2)


def test_rollout_when_a_former_deployment_left_pods_then_it_waits_for_their_room() -> None:
    world, _ = served(replicas=2)
    world.edit(model=model("two"))
    new = hash_of(world.raw)
    for number in range(2):
        gone = Controller(kind="ReplicaSet", name=f"chat-rev-{new}-old", uid="gone")
        pod = engine_pod(f"left-{number}", revision=new, ready=True, controller=gone)
        world.pods[pod.name] = pod
    turn(world, 3)
    assert world.replicas()[new] == 0

    del world.pods["left-0"], world.pods["left-1"]
    turn(world, 2)
    assert world.replicas()[new] == 1


def strip_owners(world: Fleet) -> None:
    """What a backup tool leaves of children."""
    for key, found in world.objects.items():
        meta = {**found.body["metadata"], "ownerReferences": []}
        world.objects[key] = replace(found, owner_uid=None, body={**found.body, "metadata": meta})


def test_children_when_a_backup_tool_stripped_their_owners_then_they_get_them_back() -> None:
    world, old = served(replicas=2)
    before, pods = dict(world.objects), set(world.pods)
    strip_owners(world)
    world.reconcile()
    assert world.condition("NameTaken") == {}
    assert split(world) == {old: 100}, "its pods count as ever"
    world.settle()
    assert set(world.pods) == pods
    assert {key: found.body for key, found in world.objects.items()} == {
        key: found.body for key, found in before.items()
    }
    owned = [each for key, each in world.objects.items() if key != memory_key("chat")]
    assert {each.owner_uid for each in owned} == {UID}


def test_children_when_restored_with_the_resource_then_its_engines_get_the_new_token() -> None:
    world, old = served(replicas=2)
    strip_owners(world)
    meta = {**world.raw["metadata"], "uid": "99999999-0000-4000-8000-000000000001"}
    world.raw = {key: value for key, value in world.raw.items() if key != "status"}
    world.raw["metadata"] = meta
    world.settle()
    assert world.condition("NameTaken") == {}
    assert split(world) == {old: 100}
    body = world.objects[deployment_key("chat", old)].body
    volumes = body["spec"]["template"]["spec"]["volumes"]
    (token,) = [each["secret"]["secretName"] for each in volumes if "secret" in each]
    assert token == "chat-token-99999999"


@pytest.mark.parametrize("lacks", ["llmfleet.dev/deployment", "app.kubernetes.io/managed-by"])
def test_child_when_it_has_no_owner_and_not_our_labels_then_it_is_left_alone(lacks: str) -> None:
    world, _ = served(replicas=2)
    strip_owners(world)
    key = router_key("chat")
    found = world.objects[key]
    labels = {name: v for name, v in found.body["metadata"]["labels"].items() if name != lacks}
    theirs = {**found.body, "metadata": {**found.body["metadata"], "labels": labels}}
    world.objects[key] = replace(found, body=theirs)
    world.settle()
    assert world.objects[key].body == theirs
    assert world.condition("NameTaken")["status"] == "True"


THEIR_DEPLOYMENT = Controller(kind="Deployment", name="theirs", uid="theirs")
STRANGERS = {
    "nobody controls it": None,
    "a Job": Controller(kind="Job", name="chat-rev-x-0", uid="job"),
    "another name": Controller(kind="ReplicaSet", name="theirs-0", uid="unknown"),
    "another Deployment": Controller(kind="ReplicaSet", name="{}-0", uid="rs-theirs"),
}


def add_strangers(world: Fleet, controller: Controller | None, deployment: str) -> None:
    """Pods with our labels, ready or failing for good, and a ReplicaSet that may be their owner."""
    owner = ObservedReplicaSet(uid="rs-theirs", controller=THEIR_DEPLOYMENT, refused="no: theirs")
    world.replica_sets["rs-theirs"] = owner
    if controller is not None:
        controller = replace(controller, name=controller.name.format(deployment))
    revision = deployment.removeprefix("chat-rev-")
    component = "router" if deployment == "chat-router" else "engine"
    ready = engine_pod(
        "strange-ready", component=component, revision=revision, ready=True, controller=controller
    )
    crashed = {**said("BadConfig", retriable=False), "restarts": 9}
    failing = engine_pod(
        "strange-failing", component=component, revision=revision, controller=controller, **crashed
    )
    world.pods |= {pod.name: pod for pod in (ready, failing)}


@pytest.mark.parametrize("controller", STRANGERS.values(), ids=STRANGERS)
def test_engine_pods_when_they_are_not_of_our_deployment_then_they_are_not_counted_nor_judged(
    controller: Controller | None,
) -> None:
    world, old = served(replicas=2, rollout=canary([{"setWeight": 50}, {"pause": {}}]))
    world.edit(model=model("two"))
    new = hash_of(world.raw)
    world.broken = frozenset({new})
    world.reconcile()
    world.kubelet()
    add_strangers(world, controller, f"chat-rev-{new}")
    assert facts(world).arm(new).present == 1
    turn(world, 10)
    assert split(world) == {old: 100}
    assert rejected(world) == {}
    assert world.condition("CapacityAvailable")["status"] == "True"


@pytest.mark.parametrize("controller", STRANGERS.values(), ids=STRANGERS)
def test_router_pods_when_they_are_not_of_our_deployment_then_nobody_waits_for_them(
    controller: Controller | None,
) -> None:
    world, _ = served(replicas=1)
    add_strangers(world, controller, "chat-router")
    seen = world.snapshot()
    seen = replace(seen, routers={**seen.routers, "strange-ready": silence(world.now)})
    routers = read_facts(seen, 2, world.now).routers
    assert (routers.confirmed, routers.silent, routers.ready) == (True, (), 2)


def test_router_pods_when_their_deployment_is_gone_then_they_must_confirm_still() -> None:
    world, _ = served(replicas=1)
    del world.objects[router_key("chat")]
    routers = facts(world).routers
    assert (routers.confirmed, routers.ready) == (True, 2)
    world.edit(model=model("two"))
    turn(world, 2)
    world.served.clear()
    assert len(facts(world).routers.lagging) >= 2
