"""What is told from outside has an age: what is old, or of no time to believe, decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from llmfleet.planning.facts.routers import ANSWERS_LAST
from llmfleet.planning.signal import AHEAD, Signal
from llmfleet.planning.snapshot import RequestCounts, RouterState
from tests.unit.planning.canaries import at_share, canary, rejected, split, started
from tests.unit.planning.fleet import START, Fleet, counted
from tests.unit.planning.test_rollout import turn

LASTS = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
JUDGED = [{"setWeight": 25}, {"analysis": {}}]
Counts = Mapping[str, RequestCounts]

UNBELIEVED: dict[str, tuple[timedelta | None, str]] = {
    "60 s old": (timedelta(seconds=-60), "too old to decide by"),
    "hours old": (timedelta(hours=-3), "too old to decide by"),
    "of an hour to come": (timedelta(hours=1), "which is still to come"),
    "of no known time": (None, "the newest request counts are of an unknown time"),
}


@pytest.mark.parametrize(
    ("age", "known"),
    [
        (timedelta(), True),
        (LASTS - SECOND, True),
        (LASTS, False),
        (-AHEAD, True),
        (-AHEAD - SECOND, False),
    ],
    ids=str,
)
def test_signal_when_it_is_asked_for_at_a_time_then_only_what_is_of_that_time_is_known(
    age: timedelta, known: bool
) -> None:
    found = Signal(value=7, as_of=START).at(START + age, LASTS, "it is")
    assert found.value == (7 if known else None)
    assert bool(found.problem) is not known


def test_signal_when_it_is_unknown_then_it_says_why_and_nothing_makes_it_known() -> None:
    silent: Signal[int] = Signal(problem="nobody answers", as_of=START)
    assert silent.at(START, LASTS, "it is") is silent
    for wrong in ({}, {"value": 7, "problem": "and yet"}):
        with pytest.raises(ValueError, match="either a value or a problem"):
            Signal(**wrong)  # type: ignore[arg-type]


def test_signal_when_the_same_is_told_again_then_that_is_no_news() -> None:
    assert Signal(value=7, as_of=START) == Signal(value=7, as_of=START + LASTS)
    assert Signal(value=7, as_of=START) != Signal(value=8, as_of=START)


def turn_with(world: Fleet, counts: Counts, age: timedelta | None) -> None:
    """Everything runs once, while the counts are of another time than now."""
    as_of = None if age is None else world.now + age
    seen = replace(world.snapshot(), requests=Signal(value=counts, as_of=as_of))
    world.reconcile(seen)
    world.kubelet()
    world.routers()
    world.wait(5)  # what is told of an analysis stays for a minute


@pytest.mark.parametrize(
    ("failed", "would"), [(0, "promote"), (90, "reject")], ids=["promote", "reject"]
)
@pytest.mark.parametrize(("age", "why"), UNBELIEVED.values(), ids=UNBELIEVED)
def test_counts_when_they_are_not_of_now_then_they_neither_promote_nor_reject_and_that_is_said(
    age: timedelta | None, why: str, failed: int, would: str
) -> None:
    world, old, new = started(canary(JUDGED))
    at_share(world, new, 25)
    turn_with(world, {old: counted(0), new: counted(0)}, timedelta())
    counts = {old: counted(900, 1), new: counted(300, failed)}
    for _ in range(20):
        turn_with(world, counts, age)
    assert split(world) == {old: 75, new: 25}
    assert rejected(world) == {}
    (result,) = world.status()["rollout"]["metricResults"]
    assert result["verdict"] == "Inconclusive"
    for text in (result["message"], world.condition("Progressing")["message"]):
        assert why in text

    for _ in range(20):  # and they would have, had they been of now
        turn_with(world, counts, timedelta())
    assert rejected(world) == ({new: "ErrorRateRegression"} if would == "reject" else {})
    assert world.status()["servedRevision"] == (new if would == "promote" else old)


def test_step_when_the_counts_are_old_at_its_start_then_its_own_are_not_counted_from_them() -> None:
    world, old, new = started(canary(JUDGED))
    at_share(world, new, 25)
    before = {old: counted(900), new: counted(300)}
    for _ in range(3):
        turn_with(world, before, timedelta(hours=-1))
    assert "requestsAtStart" not in world.status()["rollout"]
    # Those of an hour ago were fewer: what came since, before this step, is none of its own.
    now = {old: counted(3000), new: counted(1000)}
    turn_with(world, now, timedelta())
    assert world.status()["rollout"]["requestsAtStart"]["canary"]["total"] == 1000
    for _ in range(5):
        turn_with(world, now, timedelta())
    assert split(world) == {old: 75, new: 25}


ANSWERED: dict[str, timedelta | None] = {
    "long ago": -ANSWERS_LAST,
    "in an hour": timedelta(hours=1),
    "nobody knows when": None,
}


@pytest.mark.parametrize("age", ANSWERED.values(), ids=ANSWERED)
def test_routers_when_their_confirmation_is_not_of_now_then_nothing_is_promoted_or_taken_away(
    age: timedelta | None,
) -> None:
    world, old, new = started(canary([{"setWeight": 100}, {"pause": {"duration": "10s"}}]))
    at_share(world, new, 100)

    def turn_unheard() -> None:
        seen = world.snapshot()
        as_of = None if age is None else world.now + age
        routers = {
            name: Signal(value=RouterState(traffic_generation=generation), as_of=as_of)
            for name, (generation, _) in world.served.items()
        }
        world.reconcile(replace(seen, routers=routers))
        world.kubelet()
        world.wait(5)

    pods = world.replicas()
    for _ in range(20):
        turn_unheard()
    assert world.status()["servedRevision"] == old
    assert world.replicas() == pods
    found = world.condition("RoutersConfirmed")
    assert (found["status"], found["reason"]) == ("Unknown", "Silent")
    assert f"the last answer of {min(world.served)} is of " in found["message"]
    turn(world, 20)
    assert world.status()["servedRevision"] == new


def test_abort_when_a_router_s_answer_is_too_old_then_nothing_is_taken_away_after_the_drain() -> (
    None
):
    """Unlike one that is silent: nobody has asked it, so it may serve anything."""
    world, _, new = started(canary([{"setWeight": 25}, {"pause": {}}]))
    at_share(world, new, 25)
    stale = _told(world, world.now)
    world.edit(model=world.raw["spec"]["model"], rollout=canary([{"setWeight": 50}]))
    world.raw["metadata"].setdefault("annotations", {})["llmfleet.dev/abort"] = f"{new}@1"
    world._touch_resource()
    for _ in range(30):
        world.reconcile(replace(world.snapshot(), routers=stale))
        world.kubelet()
        world.wait(60)
    assert world.replicas()[new] > 0
    turn(world, 20)
    assert world.replicas().get(new, 0) == 0


def _told(world: Fleet, when: datetime) -> Mapping[str, Signal[RouterState]]:
    return {
        name: Signal(value=RouterState(traffic_generation=generation), as_of=when)
        for name, (generation, _) in world.served.items()
    }
