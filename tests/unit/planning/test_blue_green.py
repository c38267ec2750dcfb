"""Blue-green in the closed loop: a whole second set, a preview, one switch, a warm way back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.planning.canaries import annotate, fail, rejected, split, started
from tests.unit.planning.fleet import Fleet, counted, hash_of, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import said
from tests.unit.planning.test_rollout import turn


def blue_green(**settings: Any) -> dict[str, Any]:
    body = {"strategy": "BlueGreen", "scaleDownDelay": "5m"}
    return {**body, "blueGreen": settings} if settings else body


def preview(world: Fleet) -> str | None:
    return (world.status().get("routing") or {}).get("preview")


def at_preview(world: Fleet, revision: str) -> None:
    for _ in range(20):
        turn(world)
        if preview(world) == revision:
            turn(world)
            return
    raise AssertionError(world.status()["message"])


def test_blue_green_when_spec_changes_then_all_traffic_moves_in_one_command() -> None:
    world, old, new = started(blue_green())
    shares, previews = [], []
    for _ in range(60):
        turn(world)
        world.wait(5)
        shares.append(split(world).get(new, 0))
        previews.append(preview(world))
        assert world.ready(old) == 4, "the old set is touched before the switch is over"
        if world.status()["servedRevision"] == new:
            break
    assert set(shares) == {0, 100}
    assert set(previews[: shares.index(100)]) >= {old, new}
    assert world.replicas() == {old: 4, new: 4}
    assert world.status()["previewUrl"] == "http://chat-preview.team-a.svc"


def test_blue_green_when_switched_then_the_old_set_stays_warm_for_the_delay() -> None:
    world, old, new = started(blue_green(previewDuration="0s"))
    for _ in range(20):
        turn(world)
    assert split(world) == {new: 100}
    assert world.replicas() == {old: 4, new: 4}
    assert world.status()["phase"] == "Healthy"
    world.wait(310)
    turn(world)
    turn(world)
    assert world.replicas() == {new: 4}


def test_blue_green_when_one_pod_is_not_ready_then_nothing_moves() -> None:
    world, old, new = started(blue_green(previewDuration="0s"))
    world.kubelet()
    slow = next(name for name, pod in world.pods.items() if pod.revision == new)
    for _ in range(10):
        turn(world)
        world.pods[slow] = replace(world.pods[slow], ready=False)
    assert split(world) == {old: 100}
    assert "3 of 4" in world.status()["message"]


def test_manual_when_ready_then_it_waits_for_a_person_who_knows_the_address() -> None:
    world, old, new = started(blue_green(promotion="Manual"))
    at_preview(world, new)
    world.wait(3600)
    turn(world)
    assert world.status()["phase"] == "Paused"
    assert "http://chat-preview.team-a.svc" in world.status()["message"]
    assert split(world) == {old: 100}
    annotate(world, "promote", f"{new}@1")
    turn(world)
    assert split(world) == {new: 100}


def test_preview_duration_when_a_pod_is_lost_then_it_counts_anew() -> None:
    world, old, new = started(blue_green(previewDuration="10m"))
    at_preview(world, new)
    world.wait(590)
    name = next(name for name, pod in world.pods.items() if pod.revision == new)
    del world.pods[name]
    for _ in range(3):
        turn(world)
        world.wait(60)
    assert split(world) == {old: 100}
    world.wait(601)
    turn(world)
    assert split(world) == {new: 100}


def test_needed_requests_when_too_few_came_then_it_waits_for_them() -> None:
    world, old, new = started(blue_green(previewDuration="1m", minPreviewRequests=50))
    at_preview(world, new)
    world.requests = {new: counted(12), old: counted(900)}
    world.wait(120)
    turn(world)
    turn(world)
    assert split(world) == {old: 100}
    assert "until it has had 50 requests there (12 so far)" in world.status()["message"]
    world.requests = {new: counted(50), old: counted(900)}
    world.wait(61)
    turn(world)
    assert split(world) == {new: 100}


def test_preview_when_its_requests_fail_then_the_new_set_is_rejected_before_it_serves() -> None:
    world, old, new = started(blue_green(previewDuration="10m"))
    at_preview(world, new)
    world.requests = {new: counted(300, failed=30), old: counted(900)}
    turn(world)
    assert rejected(world) == {new: "ErrorRateRegression"}
    assert preview(world) == old
    message = world.status()["rejectedRevisions"][0]["message"]
    assert "it failed 30 of the 300 requests that it got" in message
    world.settle()
    assert world.replicas() == {old: 4}


def test_new_set_when_it_crashes_at_the_preview_then_it_is_rejected() -> None:
    world, old, new = started(blue_green(previewDuration="10m"))
    at_preview(world, new)
    fail(world, new, {**said("BadConfig", retriable=False), "restarts": 1})
    world.reconcile()
    assert rejected(world) == {new: "BadConfig"}
    world.settle()
    assert split(world) == {old: 100}
    assert world.replicas() == {old: 4}


def test_undo_when_the_old_set_is_warm_then_one_decision_brings_everything_back() -> None:
    world, old, new = started(blue_green(previewDuration="0s"))
    for _ in range(20):
        turn(world)
    assert world.status()["servedRevision"] == new
    annotate(world, "undo", f"{old}@1")
    world.reconcile()
    assert split(world) == {old: 100}
    assert rejected(world) == {new: "UserUndo"}


def test_router_when_it_has_not_switched_then_nothing_is_promoted_or_removed() -> None:
    world, old, new = started(blue_green(previewDuration="0s"))
    for _ in range(10):
        world.reconcile()
        world.kubelet()
        world.routers(0 if split(world).get(new) else None)
        world.wait(400)
    assert split(world) == {new: 100}
    assert world.status()["servedRevision"] == old
    assert world.replicas() == {old: 4, new: 4}


def test_first_revision_when_blue_green_then_it_is_served_and_previewed_at_once() -> None:
    world = Fleet(resource(rollout=blue_green(promotion="Manual")))
    world.settle()
    assert split(world) == {hash_of(world.raw): 100}
    assert preview(world) == hash_of(world.raw)
    assert world.status()["phase"] == "Healthy"


def test_preview_service_when_the_strategy_changes_then_it_goes() -> None:
    world = Fleet(resource(rollout=blue_green()))
    world.settle()
    assert "chat-preview" in {key.name for key in world.objects}
    world.edit(rollout={"strategy": "RollingUpdate"})
    world.settle()
    assert "chat-preview" not in {key.name for key in world.objects}
    assert preview(world) is None
    assert "previewUrl" not in world.status()


@pytest.mark.parametrize("stage", ["starting", "preview"])
def test_spec_when_it_changes_again_in_mid_rollout_then_the_newest_is_served(stage: str) -> None:
    world, _, second = started(blue_green(previewDuration="1m"))
    if stage == "preview":
        at_preview(world, second)
    world.edit(model=model("three"))
    third = hash_of(world.raw)
    for _ in range(60):
        turn(world)
        world.wait(10)
    assert split(world) == {third: 100}
