"""Failures of other rollout controllers, each named after its issue, which must not happen here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.planning.canaries import (
    STEPS,
    annotate,
    at_share,
    canary,
    fail,
    memory,
    rejected,
    split,
    started,
)
from tests.unit.planning.fleet import Fleet, hash_of
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import said
from tests.unit.planning.test_rollout import turn

pytestmark = pytest.mark.long

HALF = [{"setWeight": 50}, {"pause": {}}]


def carried(world: Fleet, revision: str) -> float:
    """Pods that the revision's confirmed share needs."""
    replicas: int = world.raw["spec"]["replicas"]
    return max(part.get(revision, 0) for _, part in world.served.values()) * replicas / 100


@pytest.mark.parametrize("act", ["abort", "promote", None])
def test_argo_rollouts_1415_when_in_mid_canary_then_stable_is_never_scaled_to_zero(
    act: str | None,
) -> None:
    world, old, new = started(canary(HALF))
    at_share(world, new, 50)
    if act:
        annotate(world, act, f"{new}@1")
    else:
        world.edit(replicas=6)
    for _ in range(30):
        turn(world)
        assert world.ready(old) >= carried(world, old)
        if split(world).get(new, 0) < 100:
            assert world.ready(old) > 0


def test_argo_rollouts_3372_when_a_person_aborts_then_stable_gets_no_more_than_it_carries() -> None:
    world, old, new = started(canary([{"setWeight": 75}, {"pause": {}}], maxSurge=0))
    at_share(world, new, 75)
    assert world.ready(old) == 1
    annotate(world, "abort", f"{new}@1")
    shares = []
    for _ in range(40):
        turn(world)
        shares.append(split(world)[old])
        assert world.ready(old) >= carried(world, old) - 1, "one pod less is allowed without surge"
    assert shares[0] < 100
    assert shares[-1] == 100


def test_argo_rollouts_3849_when_two_arms_run_then_an_autoscaler_counts_only_the_served_one() -> (
    None
):
    world, old, new = started(canary(HALF))
    at_share(world, new, 50)
    status = world.status()
    assert status["replicas"] == world.ready(old)
    assert f"llmfleet.dev/revision={old}" in status["selector"]


def test_argo_rollouts_4347_when_routers_lag_then_stable_does_not_shrink_before_traffic_moved() -> (
    None
):
    world, old, new = started(canary([{"setWeight": 25}, {"setWeight": 100}]))
    at_share(world, new, 25)
    before = world.ready(old)
    for _ in range(10):
        world.reconcile()
        world.kubelet()
        world.routers(0)  # the other one keeps the split before
        world.wait(60)
        assert world.ready(old) >= before - 1
        assert world.ready(old) >= carried(world, old)


def test_argo_rollouts_4973_when_aborted_then_the_canary_is_never_scaled_up_again() -> None:
    world, _, new = started(canary(HALF))
    at_share(world, new, 50)
    annotate(world, "abort", f"{new}@1")
    sizes = []
    for number in range(40):
        turn(world)
        sizes.append(world.replicas().get(new, 0))
        if number in {5, 15}:
            world.edit(replicas=6 if number == 5 else 3)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 0


@pytest.mark.parametrize(
    "edit",
    [
        {"rollout": canary([{"setWeight": 1}])},
        {"replicas": 6},
        {"router": {"replicas": 3}},
        {"rollout": {"strategy": "RollingUpdate"}},
        {"rollout": {"strategy": "BlueGreen"}},
    ],
    ids=["steps", "replicas", "router", "strategy", "blue-green"],
)
def test_argo_rollouts_faq_when_steps_are_edited_after_an_abort_then_nothing_is_rolled_again(
    edit: dict[str, object],
) -> None:
    world, old, new = started(canary(HALF))
    at_share(world, new, 50)
    annotate(world, "abort", f"{new}@1")
    world.settle()
    world.edit(**edit)
    world.settle()
    assert split(world) == {old: 100}
    assert set(world.replicas()) == {old}
    assert rejected(world) == {new: "UserAbort"}


def test_flagger_616_when_undone_after_promotion_then_the_former_revision_serves_again() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    annotate(world, "promote", f"{new}/full@1")
    world.settle()
    assert world.status()["servedRevision"] == new
    annotate(world, "undo", f"{old}@1")
    world.settle()
    assert split(world) == {old: 100}
    assert rejected(world) == {new: "UserUndo"}


def test_aibrix_1032_when_metrics_cannot_be_had_then_scaling_and_steps_go_on() -> None:
    world, old, new = started(canary(STEPS))
    at_share(world, new, 25)
    assert world.requests is None
    world.edit(replicas=6)
    for _ in range(20):
        turn(world)
    assert world.ready(old) + world.ready(new) >= 6
    world.wait(301)
    at_share(world, new, 50)


@pytest.mark.parametrize("stage", ["healthy", "mid-canary", "rejected", "paused"])
def test_kaito_2124_when_spec_changes_then_it_is_rolled_out_or_a_condition_says_why_not(
    stage: str,
) -> None:
    world, _, new = started(canary(HALF), broken=stage == "rejected")
    if stage == "healthy":
        at_share(world, new, 50)
        annotate(world, "promote", f"{new}/full@1")
        world.settle()
    elif stage == "rejected":
        turn(world, 3)
        fail(world, new, {**said("BadConfig", retriable=False), "restarts": 1})
        world.settle()
    else:
        at_share(world, new, 50)
        if stage == "paused":
            annotate(world, "pause", "true")
    world.edit(model=model("three"))
    third = hash_of(world.raw)
    for _ in range(40):
        turn(world)
    status = world.status()
    assert status["observedGeneration"] == world.raw["metadata"]["generation"]
    assert status["specRevision"] == third
    says_so = status["phase"] == "Paused" and "llmfleet.dev/pause" in status["message"]
    assert says_so or status["rollout"]["revision"] == third


def test_kuberay_4239_when_there_is_no_room_then_it_says_so_and_in_place_replacement_goes_on() -> (
    None
):
    world, old, new = started(canary(HALF))
    world.kubelet()
    for name, pod in world.pods.items():
        if pod.revision == new:
            stuck = replace(
                pod, ready=False, unschedulable="0/3 nodes have nvidia.com/gpu",
                unschedulable_since=world.now,
            )  # fmt: skip
            world.pods[name] = stuck
    world.broken |= {new}
    world.wait(7200)
    world.reconcile()
    assert world.condition("CapacityAvailable")["status"] == "False"
    assert "0/3 nodes" in world.condition("CapacityAvailable")["message"]
    assert world.ready(old) == 4
    assert rejected(world) == {}

    in_place, old, new = started(canary(HALF, maxSurge=0))
    at_share(in_place, new, 50)
    assert sum(in_place.replicas().values()) == 4


def test_dynamo_13495_when_annotations_are_replaced_then_no_act_is_lost_or_repeated() -> None:
    world, old, new = started(canary(HALF))
    at_share(world, new, 50)
    annotate(world, "abort", f"{new}@1")
    world.reconcile()
    metadata = {key: each for key, each in world.raw["metadata"].items() if key != "annotations"}
    world.raw = {**world.raw, "metadata": metadata}  # `kubectl replace`
    world.settle()
    assert rejected(world) == {new: "UserAbort"}
    assert f"{new}@1" in memory(world)["handledActs"]
    annotate(world, "retry", f"{new}@2")
    turn(world, 3)
    annotate(world, "abort", f"{new}@1")  # the old value comes back with a re-apply
    at_share(world, new, 50)
    assert split(world) == {old: 50, new: 50}


def test_dynamo_13559_when_a_pod_is_to_go_then_routers_have_confirmed_that_they_left_it() -> None:
    world, old, new = started(canary(HALF))
    at_share(world, new, 50)
    annotate(world, "promote", f"{new}/full@1")
    for _ in range(10):
        world.reconcile()
        world.kubelet()
        world.routers(0)
        world.wait(30)
    assert world.replicas()[old] >= 2, "a router still sends half of the requests there"
    for _ in range(60):  # the modelled cluster refuses to delete what is still sent requests
        turn(world)
        world.wait(5)
    assert set(world.replicas()) == {new}
