"""Single decisions of a rollout that must hold whatever else happens."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.test_convergence import model


def turn(world: Fleet, times: int = 1) -> None:
    """Everything runs once."""
    for _ in range(times):
        world.reconcile()
        world.kubelet()
        world.routers()
        world.wait(1)


def half_way(replicas: int = 2) -> tuple[Fleet, str, str]:
    """A rollout in which both revisions have traffic, confirmed."""
    world = Fleet(resource(replicas=replicas))
    world.settle()
    old = hash_of(world.raw)
    world.edit(model=model("two"))
    new = hash_of(world.raw)
    while len(world.status()["traffic"]) < 2:
        turn(world)
    return world, old, new


def test_warm_revision_when_a_router_still_sends_to_it_then_it_is_not_deleted() -> None:
    world, old, new = _promoted()
    lagging = min(world.served)
    world.served[lagging] = (world.status()["trafficGeneration"] - 1, {old: 100})
    world.wait(600)
    world.reconcile()
    assert old in world.replicas()

    world.routers()
    world.reconcile()
    assert world.replicas() == {new: 1}


def _promoted() -> tuple[Fleet, str, str]:
    world = Fleet(resource(replicas=1))
    world.settle()
    old = hash_of(world.raw)
    world.edit(model=model("two"))
    new = hash_of(world.raw)
    while world.status().get("servedRevision") != new:
        turn(world)
    return world, old, new


def test_spec_when_it_changes_in_mid_rollout_then_traffic_returns_before_a_third_revision() -> None:
    world, old, new = half_way()
    world.edit(model=model("three"))
    third = hash_of(world.raw)

    returned = False
    for _ in range(40):
        turn(world)
        split = {each["revision"]: each["weight"] for each in world.status()["traffic"]}
        if third in world.replicas():
            assert returned, "a third revision was made before the traffic had returned"
            assert new not in split
        elif split == {old: 100}:
            returned = True
    world.settle()
    assert world.replicas() == {third: 2}


def test_new_revision_when_it_loses_all_its_pods_then_everything_goes_back_at_once() -> None:
    world, old, new = half_way()
    for name, pod in world.pods.items():
        if pod.revision == new:
            world.pods[name] = replace(pod, ready=False)
    world.reconcile()

    assert world.status()["traffic"] == [{"revision": old, "weight": 100}]
    assert world.replicas()[old] == 2


def test_restored_object_when_several_revisions_are_up_then_the_last_good_one_is_served() -> None:
    world, old, new = half_way()
    world.edit(model=model("three"))
    world.raw = {key: value for key, value in world.raw.items() if key != "status"}

    world.reconcile()

    assert world.ready(new) > 0, "otherwise there is no choice to make"
    assert world.status()["traffic"] == [{"revision": old, "weight": 100}]


def test_progress_deadline_when_there_was_no_room_for_hours_then_it_counts_from_the_end() -> None:
    world = Fleet(resource(replicas=1))
    world.reconcile()
    world.kubelet()
    (name,) = (name for name, pod in world.pods.items() if pod.component == "engine")
    waiting = replace(
        world.pods[name], unschedulable="0/1 nodes available", unschedulable_since=world.now
    )
    world.pods[name] = waiting
    world.wait(20)
    world.reconcile()
    world.wait(7200)
    world.pods[name] = replace(waiting, unschedulable=None, unschedulable_since=None)
    world.reconcile()
    assert world.condition("Progressing")["status"] == "True"

    world.wait(1700)
    world.reconcile()
    assert world.condition("Progressing")["status"] == "True"
    world.wait(200)
    world.reconcile()
    assert world.condition("Progressing")["reason"] == "ProgressDeadlineExceeded"
