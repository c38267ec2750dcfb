"""Whatever happens in between, decisions lead to the same end, and never through a bad state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.planning.fleet import Fleet, hash_of, resource

MODELS = ("one", "two", "three", "broken")


def model(name: str) -> dict[str, Any]:
    return {"source": f"pvc://models/{name}", "servedName": "tiny"}


def fleet(**spec: Any) -> Fleet:
    return Fleet(
        resource(**spec), broken=frozenset({hash_of(resource(**spec, model=model("broken")))})
    )


def rollout(surge: int | str = 1, delay: str = "10s") -> dict[str, Any]:
    return {"strategy": "RollingUpdate", "maxSurge": surge, "scaleDownDelay": delay}


@pytest.mark.long
@pytest.mark.parametrize("replicas", [1, 2, 3, 7])
@pytest.mark.parametrize("surge", [0, 1, "25%", "100%"])
def test_rolling_update_when_everything_works_then_capacity_never_drops_below_the_floor(
    replicas: int, surge: int | str
) -> None:
    world = fleet(replicas=replicas, rollout=rollout(surge))
    world.settle()
    old = hash_of(world.raw)
    assert world.status()["phase"] == "Healthy"
    assert world.ready(old) == replicas

    world.edit(model=model("two"))
    new = hash_of(world.raw)
    extra = {0: 0, 1: 1, "25%": -(-replicas // 4), "100%": replicas}[surge]
    floor = replicas if extra else replicas - 1
    for _ in range(60):
        world.reconcile()
        world.kubelet()
        assert world.ready(old) + world.ready(new) >= floor
        assert sum(world.replicas().values()) <= replicas + extra
        world.routers()
        world.wait(1)
    world.settle()

    assert world.status()["servedRevision"] == new
    assert world.status()["traffic"] == [{"revision": new, "weight": 100}]
    assert world.status()["phase"] == "Healthy"
    assert world.replicas() == {new: replicas}


def test_rollout_when_the_new_revision_is_broken_then_the_old_one_serves_and_it_is_degraded() -> (
    None
):
    world = fleet()
    world.settle()
    old = hash_of(world.raw)

    world.edit(model=model("broken"))
    for _ in range(20):
        world.reconcile()
        world.kubelet()
        world.routers()
        world.wait(60)
        assert world.ready(old) == 2
    world.wait(1800)
    world.reconcile()

    status = world.status()
    assert status["traffic"] == [{"revision": old, "weight": 100}]
    assert status["servedRevision"] == old
    assert world.condition("Progressing")["reason"] == "ProgressDeadlineExceeded"
    assert (status["phase"], world.condition("Stalled")["status"]) == ("Degraded", "True")

    world.edit(model=model("one"))
    world.settle()
    assert world.status()["phase"] == "Healthy"
    assert world.replicas() == {old: 2}


def test_rollout_when_promoted_then_the_old_one_stays_warm_for_scale_down_delay() -> None:
    world = fleet(replicas=1, rollout=rollout(1, "60s"))
    world.settle()
    old = hash_of(world.raw)
    world.edit(model=model("two"))
    for _ in range(6):
        world.reconcile()
        world.kubelet()
        world.routers()
        world.wait(1)
    assert world.status()["servedRevision"] == hash_of(world.raw)
    assert world.status()["phase"] == "Healthy"
    assert world.replicas()[old] == 1

    requeue = world.reconcile().requeue_after
    assert requeue is not None
    world.wait(requeue)
    world.reconcile()

    assert old not in world.replicas()


def test_traffic_when_a_router_has_not_confirmed_then_the_old_arm_keeps_its_replicas() -> None:
    world = fleet(replicas=2)
    world.settle()
    old = hash_of(world.raw)
    world.edit(model=model("two"))
    for _ in range(10):
        world.reconcile()
        world.kubelet()
        world.routers(0)
        world.wait(1)

    assert world.replicas()[old] == 2
    assert world.condition("RoutersConfirmed")["reason"] == "Waiting"


def test_decide_when_nothing_changed_then_nothing_is_written() -> None:
    world = fleet()
    world.settle()
    writes = world.writes
    for _ in range(5):
        world.wait(60)
        world.reconcile()
    assert world.writes == writes


ACTIONS = st.one_of(
    st.tuples(st.just("reconcile"), st.none()),
    st.tuples(st.just("crash"), st.integers(1, 15)),
    st.tuples(st.just("kubelet"), st.none()),
    st.tuples(st.just("router"), st.integers(0, 1)),
    st.tuples(st.just("edit"), st.sampled_from(MODELS)),
    st.tuples(st.just("scale"), st.integers(0, 5)),
    st.tuples(st.just("look"), st.none()),
    st.tuples(st.just("stale"), st.none()),
    st.tuples(st.just("wait"), st.integers(1, 100)),
)


@pytest.mark.long
@settings(max_examples=50, deadline=None)
@given(
    actions=st.lists(ACTIONS, max_size=40),
    surge=st.sampled_from([0, 1, 2, "25%"]),
    last=st.sampled_from(MODELS[:3]),
    replicas=st.integers(1, 4),
)
def test_decide_when_anything_happens_in_between_then_it_converges_to_what_spec_asks(
    actions: list[tuple[str, Any]], surge: int | str, last: str, replicas: int
) -> None:
    world = fleet(rollout=rollout(surge))
    seen = world.snapshot()
    for action, value in actions:
        match action:
            case "reconcile":
                world.reconcile()
            case "crash":
                world.reconcile(crash_after=value)
            case "kubelet":
                world.kubelet()
            case "router":
                world.routers(value)
            case "edit":
                world.edit(model=model(value))
            case "scale":
                world.edit(replicas=value)
            case "look":
                seen = world.snapshot()
            case "stale":
                world.reconcile(snapshot=seen)
            case "wait":
                world.wait(value)
    world.edit(model=model(last), replicas=replicas)
    world.settle()

    wanted = hash_of(world.raw)
    assert world.status()["phase"] == "Healthy", world.status()["message"]
    assert world.status()["traffic"] == [{"revision": wanted, "weight": 100}]
    assert world.replicas() == {wanted: replicas}
    assert world.ready(wanted) == replicas
