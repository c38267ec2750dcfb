"""A canary that fails: rejected, or aborted and tried again; and its analysis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from llmfleet.planning.plan import Result
from llmfleet.planning.snapshot import JSON, RequestCounts, Snapshot
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
from tests.unit.planning.fleet import Fleet, counted
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import CASES, ended, said
from tests.unit.planning.test_rollout import turn

REJECTING = {
    "crash loop": (ended("boom", code=139) | {"restarts": 2}, "CrashLoop"),
    "out of memory": (ended("", code=137, reason="OOMKilled"), "OutOfMemory"),
    "engine refuses": (said("BadConfig", retriable=False), "BadConfig"),
}


@pytest.mark.parametrize(("facts", "reason"), REJECTING.values(), ids=REJECTING)
def test_canary_when_its_engine_fails_then_it_is_rolled_back_and_rejected(
    facts: dict[str, Any], reason: str
) -> None:
    world, old, new = started()
    at_share(world, new, 25)
    fail(world, new, facts)
    world.reconcile()
    assert split(world) == {old: 100}
    assert rejected(world) == {new: reason}
    world.settle()
    assert world.replicas() == {old: 4}
    assert world.status()["phase"] == "Degraded"
    assert world.condition("RolledBack")["status"] == "True"
    assert world.condition("Available")["status"] == "True"
    assert memory(world)["rejected"] == f'[["{new}","{reason}"]]'


def test_canary_when_it_never_gets_ready_then_it_is_rejected() -> None:
    world, old, new = started(canary(STEPS, progressDeadline="5m"), broken=True)
    world.kubelet()
    for name, pod in world.pods.items():
        if pod.revision == new:
            world.pods[name] = replace(pod, running_since=world.now, phase="Running")
    world.reconcile()
    assert rejected(world) == {}
    world.wait(300)
    world.reconcile()
    assert rejected(world) == {new: "NeverReady"}
    world.settle()
    assert world.replicas() == {old: 4}


@pytest.mark.parametrize("trouble", ["image", "secret", "claim", "download"])
def test_canary_when_the_cluster_fails_then_it_is_tried_again_until_retries_are_exhausted(
    trouble: str,
) -> None:
    world, old, new = started(broken=True)
    starts = [world.status()["rollout"]["id"]]
    for minutes in (5, 10, 20, None):
        world.kubelet()
        fail(world, new, CASES[trouble][0])
        world.reconcile()
        world.wait(121)
        world.reconcile()
        world.kubelet()
        world.routers()
        world.reconcile()
        assert world.replicas() == {old: 4}
        assert rejected(world) == {}
        if minutes is None:
            break
        assert world.condition("Progressing")["reason"] == "WaitingForRetry"
        world.kubelet()  # a served pod that was made anew is there: nothing else is waited for
        plan = world.reconcile()
        assert plan.requeue_after is not None
        assert 60 * minutes - 2 <= plan.requeue_after <= 60 * minutes + 1
        world.wait(plan.requeue_after)
        world.kubelet()  # the pods of the attempt before are gone by then
        world.reconcile()
        starts.append(world.status()["rollout"]["id"])
    assert starts == sorted(set(starts))
    assert len(starts) == 4
    world.wait(36000)
    turn(world, 5)
    assert world.status()["phase"] == "Degraded"
    assert world.condition("Progressing")["reason"] == "RetriesExhausted"
    assert world.replicas() == {old: 4}

    world.broken = frozenset()
    annotate(world, "retry", f"{new}@1")
    turn(world)
    at_share(world, new, 25)


@pytest.mark.parametrize("trouble", ["image", "secret", "claim", "download"])
def test_canary_when_the_cluster_fails_it_late_then_it_has_two_minutes_from_then_on(
    trouble: str,
) -> None:
    world, _, new = started(broken=True)
    world.kubelet()
    world.reconcile()
    world.wait(1000)
    fail(world, new, CASES[trouble][0])
    world.reconcile()
    assert "troubleSince" in world.status()["rollout"]
    world.wait(119)
    plan = world.reconcile()
    assert "aborted" not in world.status()["rollout"]
    assert plan.requeue_after is not None
    world.wait(plan.requeue_after)
    world.reconcile()
    assert world.status()["rollout"]["aborted"] == CASES[trouble][1]
    assert rejected(world) == {}


def without_restarts(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != "restarts"}


def engine(world: Fleet, revision: str, **facts: Any) -> None:
    """The engine pod of a revision, changed; the operator looks."""
    (name,) = [each.name for each in world.pods.values() if each.revision == revision]
    world.pods[name] = replace(world.pods[name], **facts)
    world.reconcile()


def test_canary_when_its_download_goes_on_after_failing_then_it_is_not_given_up() -> None:
    world, _, new = started(broken=True)
    world.kubelet()
    failed = without_restarts(said("DownloadFailed", retriable=True))
    for restarts in range(4):  # each fails after five minutes, having come further
        engine(world, new, running_since=world.now, restarts=restarts, phase="Running")
        world.wait(300)
        world.reconcile()
        assert "troubleSince" not in world.status()["rollout"]
        engine(world, new, **failed, restarts=restarts, running_since=None)
        assert "troubleSince" in world.status()["rollout"]
        world.wait(60)
        world.reconcile()
    engine(world, new, running_since=world.now, restarts=4)
    world.wait(90)  # 150 s after it failed, and it runs
    world.reconcile()
    assert "aborted" not in world.status()["rollout"]
    engine(world, new, ready=True)
    assert "aborted" not in world.status()["rollout"]
    assert rejected(world) == {}, "ends that are not its fault are not counted against it"
    assert "troubleSince" not in world.status()["rollout"]


def test_canary_when_its_download_fails_again_and_again_then_it_is_aborted() -> None:
    world, _, new = started(broken=True)
    world.kubelet()
    for restarts, pause in enumerate((10, 20, 40, 80)):
        engine(world, new, running_since=world.now, restarts=restarts, phase="Running")
        world.wait(5)
        failed = without_restarts(said("DownloadFailed", retriable=True))
        engine(world, new, **failed, restarts=restarts, running_since=None)
        assert "aborted" not in world.status()["rollout"]
        world.wait(pause)
    world.reconcile()
    assert world.status()["rollout"]["aborted"] == "DownloadFailed"
    assert rejected(world) == {}


def having(world: Fleet, requests: Mapping[str, RequestCounts] | None) -> Snapshot:
    world.requests = None if requests is None else dict(requests)
    return world.snapshot()


def test_canary_when_more_of_its_requests_fail_then_it_is_rejected_with_the_numbers() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    world.reconcile(having(world, {old: counted(900, 1), new: counted(300, 30)}))
    assert rejected(world) == {new: "ErrorRateRegression"}
    assert "10.0% of 300 requests failed" in world.status()["message"]
    assert split(world) == {old: 100}


def test_rejection_then_it_says_how_many_requests_the_canary_failed() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    fail(world, new, {**said("BadConfig", retriable=False), "restarts": 1})
    world.reconcile(having(world, {old: counted(900, 1), new: counted(40, 3)}))
    assert rejected(world) == {new: "BadConfig"}
    message = world.status()["rejectedRevisions"][0]["message"]
    assert message.endswith("; it failed 3 of the 40 requests that it got")


def test_numbers_when_they_change_then_they_are_written_once_a_minute() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    world.wait(60)  # past what was written while there were no numbers
    world.reconcile(having(world, {old: counted(90, 1), new: counted(20, 0)}))
    written = world.writes
    world.wait(50)
    world.reconcile(having(world, {old: counted(180, 1), new: counted(40, 0)}))
    assert world.writes == written
    world.wait(10)
    world.reconcile(having(world, {old: counted(200, 1), new: counted(60, 0)}))
    (result,) = world.status()["rollout"]["metricResults"]
    assert (result["verdict"], result["n"]) == ("Running", 60)
    assert result["asOf"] == "2026-03-01T" + world.now.strftime("%H:%M:%SZ")
    world.reconcile(having(world, {old: counted(900, 1), new: counted(300, 1)}))
    (result,) = world.status()["rollout"]["metricResults"]
    assert (result["verdict"], result["n"]) == ("Successful", 300)


def test_canary_when_its_first_share_is_served_then_counting_begins_and_stays() -> None:
    world, _, new = started()
    assert "servedSince" not in world.status()["rollout"]
    at_share(world, new, 25)
    since = world.status()["rollout"]["servedSince"]
    at_share(world, new, 25)
    world.wait(400)
    at_share(world, new, 50)
    assert world.status()["rollout"]["servedSince"] == since


def test_canary_when_samples_are_too_few_then_it_is_not_successful() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    world.reconcile(having(world, {old: counted(900, 1), new: counted(199)}))
    (result,) = world.status()["rollout"]["metricResults"]
    assert (result["verdict"], rejected(world)) == ("Running", {})


def test_canary_when_few_requests_are_evidence_enough_then_it_is_rejected() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    world.reconcile(having(world, {old: counted(150, 1), new: counted(30, 20)}))
    assert rejected(world) == {new: "ErrorRateRegression"}
    assert "chance does this to a good one at most once in 1,000,000" in world.status()["message"]


def test_canary_when_a_difference_may_be_chance_then_there_is_no_verdict() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    world.reconcile(having(world, {old: counted(900, 1), new: counted(300, 7)}))
    (result,) = world.status()["rollout"]["metricResults"]
    assert (result["verdict"], rejected(world)) == ("Running", {})
    assert "it may be chance" in result["message"]


@pytest.mark.parametrize(("stickiness", "accepted"), [("None", "1.0%"), ("Session", "2.0%")])
def test_canary_when_sessions_stay_with_it_then_a_larger_worsening_is_accepted(
    stickiness: str, accepted: str
) -> None:
    steps: list[JSON] = [{"setWeight": 25}, {"pause": {}}]
    world, old, new = started(canary(steps, stickiness=stickiness))
    at_share(world, new, 25)
    world.reconcile(having(world, {old: counted(900, 1), new: counted(300)}))
    (result,) = world.status()["rollout"]["metricResults"]
    assert f"at most {accepted} more are accepted" in result["message"]


def test_canary_when_alpha_is_larger_then_less_evidence_rejects_it() -> None:
    requests = counted(900, 1), counted(300, 12)
    for alpha, expected in ((0.01, []), (0.4, ["ErrorRateRegression"])):
        world, old, new = started(
            canary([{"setWeight": 25}, {"pause": {}}], analysis={"alpha": alpha})
        )
        at_share(world, new, 25)
        world.reconcile(having(world, {old: requests[0], new: requests[1]}))
        assert list(rejected(world).values()) == expected


@pytest.mark.parametrize(
    ("what", "share", "phase"),
    [("Hold", 25, "Paused"), ("Rollback", 0, "Degraded"), ("Proceed", 100, "Healthy")],
)
def test_analysis_when_nothing_is_known_then_it_is_inconclusive_at_max_duration(
    what: str, share: int, phase: str
) -> None:
    analysis = {"onInconclusive": what, "maxDuration": "10m"}
    world, old, new = started(canary([{"setWeight": 25}, {"analysis": {}}], analysis=analysis))
    at_share(world, new, 25)
    assert world.condition("Progressing")["reason"] == "Analyzing"
    world.wait(590)
    turn(world)
    assert split(world) == {old: 75, new: 25}
    world.wait(20)
    turn(world, 40)
    assert split(world).get(new, 0) == share
    assert world.status()["phase"] == phase
    assert rejected(world) == ({new: "AnalysisInconclusive"} if what == "Rollback" else {})


def test_analysis_when_it_succeeds_then_the_next_step_follows_at_once() -> None:
    world, old, new = started(canary([{"setWeight": 25}, {"analysis": {}}, {"setWeight": 50}]))
    at_share(world, new, 25)
    world.reconcile(having(world, {old: counted(90, 1), new: counted(30, 0)}))  # its clock runs
    world.reconcile(having(world, {old: counted(990, 10), new: counted(330, 3)}))
    assert world.status()["rollout"]["step"] == 2


@pytest.mark.parametrize(
    ("end", "result", "reason"),
    [
        ("promote", Result.PROMOTED, "Promoted"),
        ("abort", Result.REJECTED, "UserAbort"),
        ("crash", Result.REJECTED, "BadConfig"),
        ("another spec", Result.ABORTED, "Superseded"),
    ],
)
def test_attempt_when_it_ends_then_its_outcome_is_told_once(
    end: str, result: Result, reason: str
) -> None:
    world, _, new = started()
    at_share(world, new, 25)
    before = len(world.plans)
    match end:
        case "promote":
            annotate(world, "promote", f"{new}/full@1")
        case "abort":
            annotate(world, "abort", f"{new}@1")
        case "crash":
            fail(world, new, {**said("BadConfig", retriable=False), "restarts": 1})
        case _:
            world.edit(model=model("three"))
    turn(world, 40)
    found = [plan.outcome for plan in world.plans[before:] if plan.outcome is not None]
    assert [(each.revision, each.result, each.reason) for each in found] == [(new, result, reason)]
    assert found[0].seconds > 0
