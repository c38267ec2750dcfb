"""Steps that reach a canary beside its weight: headers, copies, a size of its own, sessions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.planning.canaries import annotate, at_share, canary, fail, split, started
from tests.unit.planning.fleet import Fleet
from tests.unit.planning.test_diagnosis import said
from tests.unit.planning.test_rollout import turn

TESTERS = [{"name": "x-tester", "exact": "1"}]


def routing(world: Fleet) -> dict[str, Any]:
    return world.status().get("routing") or {}


def turns(world: Fleet, count: int = 8) -> None:
    for _ in range(count):
        turn(world)


def test_header_route_when_its_step_comes_then_one_pod_serves_testers_without_weight() -> None:
    world, old, new = started(canary([{"setHeaderRoute": {"headers": TESTERS}}, {"pause": {}}]))
    turns(world)
    assert routing(world) == {"headerRoute": {"revision": new, "headers": TESTERS}}
    assert split(world) == {old: 100}
    assert world.replicas() == {old: 4, new: 1}
    assert world.status()["rollout"]["step"] == 1
    assert "RoutingChanged" in world.events


def test_header_route_when_a_step_ends_it_then_it_is_gone() -> None:
    steps = [{"setHeaderRoute": {"headers": TESTERS}}, {"setHeaderRoute": {}}, {"pause": {}}]
    world, _, _ = started(canary(steps))
    turns(world, 12)
    assert world.status()["rollout"]["step"] == 2
    assert routing(world) == {}


def test_mirror_when_the_canary_has_no_ready_pod_then_it_is_taken_back_and_the_clock_too() -> None:
    steps = [{"setMirror": {"percent": 20}}, {"pause": {"duration": "5m"}}, {"setWeight": 50}]
    world, _, new = started(canary(steps))
    turns(world)
    assert routing(world) == {"mirror": {"revision": new, "percent": 20}}
    assert world.status()["rollout"]["step"] == 1
    fail(world, new, {})
    turn(world)
    assert routing(world) == {}
    world.wait(600)
    turn(world)
    assert world.status()["rollout"]["step"] == 1
    world.broken = frozenset()
    turns(world)
    assert routing(world) == {"mirror": {"revision": new, "percent": 20}}
    assert world.status()["rollout"]["step"] == 1


@pytest.mark.parametrize(
    ("scale", "surge", "pods"),
    [({"replicas": 2}, 2, 2), ({"percent": 75}, 4, 3), ({"percent": 100}, 1, 1)],
)
def test_canary_scale_then_the_canary_has_so_many_pods_as_the_surge_allows(
    scale: dict[str, Any], surge: int, pods: int
) -> None:
    world, old, new = started(canary([{"setCanaryScale": scale}, {"pause": {}}], maxSurge=surge))
    turns(world)
    assert world.replicas() == {old: 4, new: pods}
    assert world.status()["rollout"]["step"] == 1
    assert split(world) == {old: 100}


def test_canary_scale_when_its_pods_are_not_ready_then_the_step_is_not_over() -> None:
    world, _, _ = started(canary([{"setCanaryScale": {"replicas": 2}}, {"pause": {}}]), broken=True)
    turns(world)
    assert world.status()["rollout"]["step"] == 0


def test_canary_scale_when_it_follows_the_weight_again_then_so_do_the_pods() -> None:
    steps = [
        {"setWeight": 25}, {"setCanaryScale": {"replicas": 3}},
        {"setCanaryScale": {"matchTrafficWeight": True}}, {"pause": {}},
    ]  # fmt: skip
    world, old, new = started(canary(steps, maxSurge=3))
    turns(world, 20)
    assert world.status()["rollout"]["step"] == 3
    assert world.replicas() == {old: 4, new: 1}


def test_routes_when_the_rollout_is_aborted_then_they_end_with_the_weight() -> None:
    steps = [{"setWeight": 25}, {"setMirror": {"percent": 5}}, {"pause": {}}]
    world, old, new = started(canary(steps))
    at_share(world, new, 25)
    turns(world)
    assert routing(world)["mirror"]["percent"] == 5
    annotate(world, "abort", f"{new}@1")
    world.reconcile()
    assert routing(world) == {}
    assert split(world) == {old: 100}
    world.settle()
    assert world.replicas() == {old: 4}


def test_routes_when_the_canary_crashes_then_they_end_at_once() -> None:
    world, old, new = started(canary([{"setHeaderRoute": {"headers": TESTERS}}, {"pause": {}}]))
    turns(world)
    fail(world, new, {**said("BadConfig", retriable=False), "restarts": 1})
    world.reconcile()
    assert routing(world) == {}
    assert split(world) == {old: 100}


def test_routes_when_paused_by_annotation_then_they_stay() -> None:
    world, _, new = started(canary([{"setMirror": {"percent": 5}}, {"pause": {"duration": "1m"}}]))
    turns(world)
    annotate(world, "pause", "true")
    world.wait(600)
    turns(world)
    assert routing(world) == {"mirror": {"revision": new, "percent": 5}}
    assert world.status()["phase"] == "Paused"


def test_sessions_when_sticky_then_only_a_rollout_commands_it() -> None:
    steps = [{"setWeight": 25}, {"pause": {}}]
    world, _, new = started(canary(steps, stickiness="Session"))
    assert routing(world) == {"stickiness": "Session"}
    at_share(world, new, 25)
    annotate(world, "promote", f"{new}/full@1")
    world.settle()
    assert world.status()["servedRevision"] == new
    assert routing(world) == {}


def test_deletion_when_a_router_still_copies_requests_then_the_pods_stay() -> None:
    world, _, new = started(canary([{"setMirror": {"percent": 5}}, {"pause": {}}]))
    turns(world)
    annotate(world, "abort", f"{new}@1")
    for _ in range(3):
        world.reconcile()
        world.routers(0)
        world.wait(30)
    assert new in world.replicas()
    world.settle()
    assert new not in world.replicas()
