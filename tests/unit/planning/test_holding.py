"""A rollout that is held: nothing new goes up, and everything else goes on."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.planning.canaries import annotate, at_share, canary, rejected, split, started
from tests.unit.planning.fleet import SETTINGS, Fleet, hash_of, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_rollout import turn

PAUSED = canary([{"setWeight": 25}, {"pause": {}}])
FROM_A_FILE = {"source": "file:///models/two", "servedName": "tiny"}
"""Not accepted unless the operator's settings allow it."""


def at_a_quarter() -> tuple[Fleet, str, str]:
    world, old, new = started(PAUSED)
    at_share(world, new, 25)
    turn(world, 2)
    return world, old, new


def hold(world: Fleet) -> None:
    """The operator is upgraded before its CRD."""
    world.settings = replace(world.settings, crd_outdated=True)


def test_hold_when_the_fleet_is_scaled_to_zero_and_back_then_its_pods_come_back() -> None:
    world, old, new = at_a_quarter()
    world.edit(replicas=0)
    turn(world, 6)
    hold(world)
    world.edit(replicas=4)
    turn(world, 10)
    assert world.replicas() == {old: 4, new: 1}
    assert split(world) == {old: 75, new: 25}


def test_hold_when_spec_is_not_accepted_and_the_fleet_grows_then_its_size_is_obeyed() -> None:
    world, old, new = at_a_quarter()
    world.edit(model=FROM_A_FILE, replicas=8)
    turn(world, 10)
    assert world.replicas() == {old: 8, new: 2} or sum(world.replicas().values()) == 9
    assert split(world) == {old: 75, new: 25}


def test_hold_when_the_served_deployment_is_deleted_then_it_is_put_back() -> None:
    world, old, _ = at_a_quarter()
    world.edit(model=FROM_A_FILE)
    turn(world, 2)
    name = f"chat-rev-{old}"
    del world.objects[
        next(key for key in world.objects if (key.kind, key.name) == ("Deployment", name))
    ]
    turn(world, 20)
    assert world.ready(old) >= 3


def test_hold_when_spec_goes_back_to_the_served_revision_then_the_rollout_ends() -> None:
    world, old, _ = at_a_quarter()
    hold(world)
    world.edit(model=model("one"))
    turn(world, 10)
    assert split(world) == {old: 100}


def test_hold_of_one_replica_without_surge_then_its_advice_helps() -> None:
    policy = canary([{"setWeight": 50}, {"pause": {}}], maxSurge=0)
    world = Fleet(resource(replicas=2, rollout=policy))
    world.settle()
    old = hash_of(world.raw)
    world.edit(model=model("two"))
    new = hash_of(world.raw)
    at_share(world, new, 50)
    world.edit(replicas=1)
    turn(world, 5)
    assert (
        "abort the rollout, take spec back, or set spec.replicas to 2" in world.status()["message"]
    )
    world.edit(model=model("one"))
    world.settle()
    assert split(world) == {old: 100}
    assert world.replicas() == {old: 1}


def test_hold_when_an_undo_is_asked_for_then_it_is_refused_and_says_why() -> None:
    world, old, new = at_a_quarter()
    annotate(world, "promote", f"{new}/full@1")
    world.settle()
    hold(world)
    annotate(world, "undo", f"{old}@1")
    turn(world, 5)
    refused = world.condition("ActRefused")
    assert "the installed CRD is older than the operator" in refused["message"]
    assert rejected(world) == {}


def test_hold_when_status_is_lost_and_readiness_for_a_moment_then_nothing_is_deleted() -> None:
    allowed = replace(SETTINGS, allow_file_sources=True)
    world = Fleet(resource(replicas=2, model=FROM_A_FILE), settings=allowed)
    world.settle()
    served = hash_of(world.raw)
    world.settings = SETTINGS
    turn(world, 2)
    world.raw = {key: value for key, value in world.raw.items() if key != "status"}
    turn(world, 3)
    world.wait(60)
    for name, pod in world.pods.items():
        if pod.revision == served:
            world.pods[name] = replace(pod, ready=False, unready_since=world.now)
    plan = world.reconcile()
    assert [each.key.name for each in plan.deletions if each.key.kind == "Deployment"] == []
