"""A revision that is gone back to is judged by what its pods do from now on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmfleet.planning.facts.arms import Arm
from llmfleet.planning.rollout.failures import MAX_ENDED_BEFORE, ends_before
from tests.unit.planning.canaries import annotate, at_share, canary, rejected, split
from tests.unit.planning.fleet import Fleet, engine_pod, hash_of, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import ended
from tests.unit.planning.test_rollout import turn

CRASH = ended("Segmentation fault", code=139)["last_termination"]
PAST = {"last_termination": CRASH, "restarts": 2}


def change(world: Fleet, revision: str, **facts: Any) -> None:
    for name, pod in world.pods.items():
        if pod.revision == revision:
            world.pods[name] = replace(pod, **facts)


def reverted(**past: Any) -> tuple[Fleet, str]:
    """An old revision whose pods have a past; a new one was promoted, and spec goes back."""
    policy = canary([{"setWeight": 50}, {"pause": {"duration": "10s"}}], scaleDownDelay="1h")
    world = Fleet(resource(replicas=2, rollout=policy))
    world.settle()
    old = hash_of(world.raw)
    change(world, old, **past)
    world.edit(model=model("two"))
    new = hash_of(world.raw)
    annotate(world, "promote", f"{new}/full@1")
    for _ in range(60):
        turn(world)
        if world.status()["servedRevision"] == new:
            break
    world.edit(model=model("one"))
    world.reconcile()
    assert world.status()["rollout"]["revision"] == old
    return world, old


def test_kept_revision_when_its_pods_restarted_in_their_life_then_it_is_not_rejected_for_it() -> (
    None
):
    world, old = reverted(**PAST)
    turn(world, 5)
    assert rejected(world) == {}
    for _ in range(60):
        turn(world)
    assert split(world) == {old: 100}
    assert world.status()["servedRevision"] == old


def test_kept_revision_when_a_pod_of_it_loses_readiness_then_its_past_end_is_not_told_anew() -> (
    None
):
    world, old = reverted(**PAST, running_since=None)
    change(world, old, ready=False, running_since=world.now)
    world.broken = frozenset({old})
    turn(world, 3)
    assert rejected(world) == {}
    assert world.condition("Progressing")["reason"] != "CrashLoop"


@pytest.mark.parametrize("restarts", [3, 4])
def test_kept_revision_when_it_ends_twice_since_then_it_is_rejected(restarts: int) -> None:
    world, old = reverted(**PAST)
    at_share(world, old, 50)
    change(world, old, restarts=restarts)
    world.reconcile()
    assert rejected(world) == ({old: "EngineExited"} if restarts == 4 else {})


def test_past_when_an_attempt_begins_then_an_end_that_is_waited_out_counts_as_well() -> None:
    waits = engine_pod("waits", **ended("boom"))
    runs = engine_pod("runs", **(ended("boom") | {"running_since": waits.created_at}))
    arm = Arm(wanted=3, pods=(waits, runs, engine_pod("fresh")))
    assert ends_before(arm, None) == {"waits": 2, "runs": 1}
    assert ends_before(arm, {}) == {}
    assert ends_before(arm, {"runs": 1, "gone": 7}) == {"runs": 1}


def test_past_when_there_are_very_many_pods_then_those_with_the_most_are_remembered() -> None:
    pods = tuple(engine_pod(f"p{number:03}", restarts=number) for number in range(400))
    found = ends_before(Arm(wanted=400, pods=pods), None)
    assert len(found) == MAX_ENDED_BEFORE
    assert min(found.values()) == 400 - MAX_ENDED_BEFORE


def test_attempt_when_nothing_ever_ended_then_nothing_of_it_is_recorded() -> None:
    world, _ = reverted()
    assert "endedBefore" not in world.status()["rollout"]
