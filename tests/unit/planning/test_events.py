"""What is told once, and what is told again although it reads alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmfleet.planning.plan import PlannedEvent
from tests.unit.planning.canaries import annotate, at_share, canary, fail, split, started
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.test_blue_green import blue_green
from tests.unit.planning.test_rollout import turn


def told(world: Fleet, reason: str) -> list[PlannedEvent]:
    return [event for plan in world.plans for event in plan.events if event.reason == reason]


def until(world: Fleet, phase: str) -> None:
    for _ in range(40):
        turn(world)
        if world.status()["phase"] == phase:
            return
    raise AssertionError(world.status()["message"])


@pytest.mark.parametrize("strategy", ["BlueGreen", "Canary"])
def test_pause_when_it_comes_again_after_abort_and_retry_then_it_is_another_occurrence(
    strategy: str,
) -> None:
    """So nobody is left uncalled the second time, however soon that is."""
    policy = blue_green(promotion="Manual") if strategy == "BlueGreen" else canary(
        [{"setWeight": 25}, {"pause": {}}]
    )  # fmt: skip
    world, old, new = started(policy)
    until(world, "Paused")
    annotate(world, "abort", f"{new}@1")
    until(world, "Degraded")
    assert split(world) == {old: 100}
    annotate(world, "retry", f"{new}@2")
    until(world, "Paused")
    first, second = told(world, "Paused")
    assert first.message == second.message
    assert first.occurrence != second.occurrence


def test_split_when_it_goes_back_and_forth_then_each_move_is_another_occurrence() -> None:
    world, old, new = started(canary([{"setWeight": 25}, {"pause": {}}]))
    for number in range(2):
        at_share(world, new, 25)
        annotate(world, "abort", f"{new}@a{number}")
        at_share(world, old, 100)
        annotate(world, "retry", f"{new}@r{number}")
    moves = told(world, "TrafficShifted")
    assert len({each.message for each in moves}) < len(moves)
    assert len({(each.message, each.occurrence) for each in moves}) == len(moves)


def test_state_when_it_flaps_in_one_attempt_then_it_is_the_same_occurrence() -> None:
    world = Fleet(resource())
    world.settle()
    revision = hash_of(world.raw)
    for _ in range(2):
        fail(world, revision, {"phase": "Running"})
        turn(world)
        world.broken = frozenset()
        turn(world, 2)
    lost = told(world, "NoReadyReplicas")
    assert len(lost) == 2
    assert len(set(lost)) == 1


def test_outage_when_it_begins_and_ends_then_both_are_told() -> None:
    world = Fleet(resource())
    world.settle()
    world.plans.clear()
    fail(world, hash_of(world.raw), {"phase": "Running"})
    turn(world, 3)
    (lost,) = told(world, "NoReadyReplicas")
    assert lost.type == "Warning"
    assert told(world, "Available") == []
    world.broken = frozenset()
    turn(world, 3)
    (back,) = told(world, "Available")
    assert back.type == "Normal"


def test_outage_when_nobody_was_served_or_none_are_wanted_then_it_is_none() -> None:
    world = Fleet(resource())
    world.settle()
    world.edit(replicas=0)
    world.settle()
    assert world.condition("Available")["status"] == "False"
    assert told(world, "NoReadyReplicas") == told(world, "Available") == []


def test_first_revision_when_its_routers_come_later_then_no_outage_is_said_to_have_ended() -> None:
    world = Fleet(resource())
    for _ in range(12):  # the engines are ready and served long before a router is
        turn(world)
        for name, pod in world.pods.items():
            if pod.component == "router":
                world.pods[name] = replace(pod, ready=False)
    assert world.condition("Available")["reason"] == "NoReadyRouters"
    world.settle()
    assert world.condition("Available")["status"] == "True"
    assert told(world, "NoReadyRouters") == told(world, "Available") == []


def test_occurrence_when_an_act_is_repeated_then_it_is_told_again() -> None:
    world, _, new = started(canary([{"setWeight": 25}, {"pause": {}}, {"pause": {}}]))
    at_share(world, new, 25)
    for number in range(2):
        annotate(world, "promote", f"{new}@{number}")
        turn(world)
    first, second = told(world, "ActDone")
    assert "step 2 of 3" in first.message
    assert "step 3 of 3" in second.message
    assert first.occurrence != second.occurrence


def test_message_when_clients_get_no_answer_then_that_comes_first_whatever_else_is_told() -> None:
    world, old, new = started(canary([{"setWeight": 25}, {"pause": {}}]))
    at_share(world, new, 25)
    annotate(world, "abort", f"{new}@1")
    until(world, "Degraded")
    assert world.status()["message"].startswith(f"revision {new} that spec asks for was rejected")
    fail(world, old, {"phase": "Running"})
    turn(world)
    outage = f"none of the engine pods of {old} is ready, clients get 503; "
    assert world.status()["message"].startswith(outage)
    assert world.condition("Ready")["message"].startswith(outage)
