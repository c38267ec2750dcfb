"""A canary in the closed loop: its steps, its sizes, its clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from llmfleet.planning.snapshot import JSON
from tests.unit.planning.canaries import (
    STEPS,
    at_share,
    canary,
    rejected,
    split,
    started,
)
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_rollout import turn


@pytest.mark.long
def test_canary_when_steps_are_left_out_then_the_default_ones_run_to_promotion() -> None:
    world, old, new = started({"maxSurge": 1, "scaleDownDelay": "10s"})
    seen = [0]
    for _ in range(800):
        turn(world)
        world.wait(1)
        share = split(world).get(new, 0)
        if share != seen[-1]:
            seen.append(share)
        assert world.ready(old) + world.ready(new) >= 4
        if world.status()["servedRevision"] == new:
            break
    assert seen[:5] == [0, 5, 10, 25, 50]
    assert seen[-1] == 100
    assert world.now - datetime(2026, 3, 1, 12, tzinfo=UTC) > timedelta(minutes=20)
    world.settle()
    assert world.replicas() == {new: 4}
    assert world.status()["phase"] == "Healthy"
    assert "rollout" not in world.status()


def test_canary_when_it_is_the_first_revision_then_it_skips_the_steps() -> None:
    world = Fleet(resource(rollout=canary(STEPS)))
    world.settle()
    assert split(world) == {hash_of(world.raw): 100}
    assert world.status()["phase"] == "Healthy"


@pytest.mark.parametrize(
    ("replicas", "surge", "sizes"),
    [(4, 1, (4, 1)), (4, 0, (3, 1)), (1, 1, (1, 1)), (10, "25%", (10, 3)), (2, 0, (1, 1))],
)
def test_canary_when_at_a_step_then_the_arms_have_the_sizes_of_the_rule(
    replicas: int, surge: int | str, sizes: tuple[int, int]
) -> None:
    world, old, new = started(canary([{"setWeight": 25}, {"pause": {}}], maxSurge=surge), replicas)
    at_share(world, new, 25)
    assert world.replicas() == {old: sizes[0], new: sizes[1]}


def test_canary_when_surge_is_small_then_the_weight_rises_in_sub_steps() -> None:
    world, old, new = started(canary([{"setWeight": 50}, {"pause": {}}]), 10)
    shares = []
    for _ in range(40):
        turn(world)
        shares.append(split(world).get(new, 0))
        carried = 10 * shares[-1] / 100
        assert world.ready(new) >= carried
        assert world.ready(old) >= 10 - carried
    assert shares == sorted(shares)
    assert set(shares) == {0, 10, 20, 30, 40, 50}
    assert world.replicas() == {old: 6, new: 5}


def test_step_when_a_router_has_not_confirmed_then_its_clock_does_not_start() -> None:
    world, _, new = started()
    for _ in range(6):
        world.reconcile()
        world.kubelet()
        world.routers(0)
        world.wait(400)
    assert split(world)[new] == 25
    assert world.status()["rollout"]["step"] == 0

    turn(world, 2)
    rollout = world.status()["rollout"]
    assert rollout["step"] == 1
    assert datetime.fromisoformat(rollout["stepStartedAt"]) >= world.now - timedelta(seconds=2)


def test_timed_pause_when_it_is_over_then_the_plan_comes_back_for_it() -> None:
    world, _, new = started()
    at_share(world, new, 25)
    plan = world.reconcile()
    assert plan.status is not None
    assert plan.requeue_after is not None
    assert 290 < plan.requeue_after <= 302
    assert world.status()["phase"] == "Progressing"
    assert world.condition("Progressing")["reason"] == "StepPause"
    assert "step 2 of 4 pauses until 12:" in world.status()["message"]
    assert world.status()["message"].endswith("; then 50 %")
    world.wait(plan.requeue_after)
    world.reconcile()
    assert world.status()["rollout"]["step"] == 2


def test_step_when_this_operator_does_not_know_it_then_no_rollout_begins_and_it_says_so() -> None:
    world, old, _ = started(canary([{"setMoon": {"phase": "full"}}, *STEPS]))
    turn(world, 10)
    assert split(world) == {old: 100}
    assert "rollout" not in world.status()
    assert "does not know spec.rollout.steps[0].setMoon" in world.status()["message"]
    world.edit(rollout=canary(STEPS))
    turn(world)
    assert world.status()["rollout"]["state"] == "Forward"


def test_plan_when_spec_is_edited_in_mid_rollout_then_the_frozen_steps_go_on() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    world.edit(rollout=canary([{"setWeight": 99}], maxSurge=3))
    turn(world, 5)
    assert split(world) == {old: 75, new: 25}
    assert world.status()["rollout"]["plan"]["steps"] == STEPS


def test_spec_when_it_returns_to_stable_in_mid_canary_then_the_rollout_ends() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    world.edit(model=model("one"))
    world.reconcile()
    assert split(world) == {old: 100}
    world.settle()
    assert world.replicas() == {old: 4}
    assert rejected(world) == {}
    assert world.status()["phase"] == "Healthy"


def test_replica_when_there_is_one_and_no_surge_then_a_canary_is_blocked() -> None:
    world, old, _ = started(canary(STEPS, maxSurge=0), 1)
    world.settle()
    assert world.condition("Progressing")["reason"] == "Blocked"
    assert "maxSurge to 1" in world.status()["message"]
    assert world.replicas() == {old: 1}


@pytest.mark.parametrize(
    "policy",
    [
        canary([{"setWeight": 5}, {"setWeight": 25}, {"setWeight": 60}], maxSurge=1),
        canary([{"setWeight": 25}, {"setWeight": 50}], maxSurge=0),
        {"strategy": "BlueGreen", "scaleDownDelay": "10s"},
        {"strategy": "RollingUpdate", "maxSurge": 2, "scaleDownDelay": "10s"},
    ],
)
def test_release_when_promoted_then_each_of_its_pods_loaded_the_model_once_and_stable_none(
    policy: JSON,
) -> None:
    world, old, new = started(policy)
    made = set(world.pods)
    while world.status()["servedRevision"] != new:
        turn(world)
        world.wait(1)
        made |= set(world.pods)
    world.settle()
    made |= set(world.pods)
    assert sum(name.startswith(f"chat-rev-{new}") for name in made) == 4
    assert sum(name.startswith(f"chat-rev-{old}") for name in made) == 4
