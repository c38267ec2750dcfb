"""What people and routers are told is what is: verdicts, messages, Events and generations."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmfleet.planning.analysis.judge import Criterion, Judgement, Verdict, judge_requests
from llmfleet.planning.analysis.metrics.error_rate import ERROR_RATE
from llmfleet.planning.signal import Signal
from llmfleet.planning.snapshot import NOT_COUNTED, RequestCounts, RouterState
from tests.unit.planning.canaries import annotate, at_share, canary, fail, rejected, split, started
from tests.unit.planning.fleet import START, counted, hash_of
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import said
from tests.unit.planning.test_rollout import turn

HELD_TO = Criterion(metric=ERROR_RATE, min_effect=0.01, min_samples=5, alpha=0.01)


def judged(**counts: RequestCounts) -> Judgement:
    found = Signal(value=counts, as_of=START)
    return judge_requests(found, HELD_TO, stable="old", canary="new")


def test_counts_when_a_revision_has_none_then_the_verdict_names_it() -> None:
    found = judged(old=counted(10))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.message == "no request of new is counted yet"


def test_failures_when_they_are_of_requests_sent_before_then_the_judge_still_judges() -> None:
    found = judged(old=replace(counted(100, 3), failed=130), new=counted(300, 300))
    assert found.verdict is not Verdict.ERROR
    assert found.stable == 1.0


def test_result_when_there_are_no_numbers_then_it_names_what_spec_accepts_all_the_same() -> None:
    held_to = replace(HELD_TO, min_effect=0.2)
    for requests in (NOT_COUNTED, Signal(value={"old": counted(1), "new": counted(1)})):
        found = judge_requests(requests, held_to, stable="old", canary="new")
        assert found.as_result().min_effect == 0.2


def test_canary_when_it_answers_nothing_any_more_then_it_fails_and_the_sentence_says_so() -> None:
    world, old, new = started(canary([{"setWeight": 10}, {"pause": {"duration": "1h"}}]))
    at_share(world, new, 10)
    world.requests = {old: counted(900), new: replace(counted(4), hanging=4)}
    turn(world)
    assert rejected(world) == {new: "ErrorRateRegression"}
    wanted = f"none of its last 4 requests was answered, while {old} answered"
    assert wanted in world.condition("RolledBack")["message"]


def test_streams_when_the_canary_s_break_off_later_then_that_is_evidence_as_well() -> None:
    calm = replace(counted(900), looks=((90, 0),) * 10, late_looks=((90, 0),) * 10)
    cut = replace(counted(100, 40), looks=((10, 0),) * 10, late_looks=((10, 4),) * 10)
    found = judged(old=calm, new=cut)
    assert found.verdict is Verdict.FAILED


def test_canary_when_it_fails_all_at_100_percent_then_it_is_sent_back_and_not_rejected() -> None:
    world, old, new = started(canary([{"setWeight": 100}, {"pause": {"duration": "1h"}}]))
    at_share(world, new, 100)
    alone = replace(counted(40, 40), looks=((4, 4),) * 10)
    world.requests = {old: replace(counted(0), looks=((0, 0),) * 10), new: alone}
    world.wait(60)
    turn(world)
    assert split(world) == {old: 100}
    assert rejected(world) == {}
    turn(world, 6)
    assert world.condition("Progressing")["reason"] == "WaitingForRetry"


def test_message_when_traffic_is_still_elsewhere_then_stable_is_not_said_to_be_served() -> None:
    world, old, new = started(canary([{"setWeight": 50}, {"pause": {}}], maxSurge=0))
    at_share(world, new, 50)
    annotate(world, "abort", f"{new}@1")
    world.reconcile()
    assert split(world) == {old: 50, new: 50}
    for text in (world.status()["message"], world.condition("RolledBack")["message"]):
        assert f"{old} is served" not in text
        assert "50 %" in text


@pytest.mark.parametrize("cause", ["pod", "requests"])
def test_promotion_when_the_rollout_fails_in_the_same_pass_then_it_is_refused_and_not_told(
    cause: str,
) -> None:
    world, old, new = started()
    at_share(world, new, 25)
    annotate(world, "promote", f"{new}/full@1")
    if cause == "pod":
        fail(world, new, {"last_termination": said("BadConfig", retriable=False)[
            "last_termination"], "restarts": 1})  # fmt: skip
    else:
        world.requests = {old: counted(900, 1), new: counted(300, 60)}
    plan = world.reconcile()
    assert new in rejected(world)
    assert "ActDone" not in {event.reason for event in plan.events}
    assert "it goes back instead" in world.condition("ActRefused")["message"]
    assert split(world) == {old: 100}


@pytest.mark.parametrize("reported", [2**63 - 1, 10**6])
def test_generation_when_a_router_reports_a_huge_one_then_the_next_still_rises_by_one(
    reported: int,
) -> None:
    world, _, new = started()
    turn(world)
    name = min(world.served)
    before = world.status()["trafficGeneration"]
    for _ in range(30):
        seen = world.snapshot()
        said = Signal(value=RouterState(traffic_generation=reported), as_of=world.now)
        routers = {**seen.routers, name: said}
        world.reconcile(replace(seen, routers=routers))
        world.kubelet()
        world.wait(5)
        if split(world).get(new):
            break
    assert world.status()["trafficGeneration"] == before + 1


def test_generation_when_the_status_is_lost_then_the_next_is_above_all_before() -> None:
    world, _, new = started()
    at_share(world, new, 25)
    before = world.status()["trafficGeneration"]
    world.raw = {**world.raw, "status": {}}
    turn(world, 3)
    assert world.status()["trafficGeneration"] > before


def test_undo_when_a_canary_is_under_way_then_the_served_one_comes_first_and_it_never_gains() -> (
    None
):
    world, kept, served = started(canary([{"setWeight": 50}, {"pause": {}}]))
    at_share(world, served, 50)
    annotate(world, "promote", f"{served}/full@1")
    world.settle()
    world.edit(model=model("three"))
    bad = hash_of(world.raw)
    at_share(world, bad, 50)
    annotate(world, "undo", f"{kept}@2")
    shares = []
    for _ in range(40):
        world.reconcile()
        shares.append(split(world).get(bad, 0))
        world.kubelet()
        world.routers()
        world.wait(5)
    assert shares == sorted(shares, reverse=True)
    assert rejected(world)[bad] == "UserUndo"
    assert split(world) == {kept: 100}
    assert world.status()["servedRevision"] == kept
    assert served not in rejected(world)


def test_phase_when_a_paused_rollout_is_superseded_then_it_waits_for_nobody() -> None:
    world, old, new = started(canary([{"setWeight": 25}, {"pause": {}}]))
    at_share(world, new, 25)
    turn(world, 3)
    assert world.status()["phase"] == "Paused"
    world.edit(model=model("three"))
    world.reconcile()
    assert split(world) == {old: 100}
    assert world.status()["phase"] == "Progressing"
    assert not world.condition("Paused")
