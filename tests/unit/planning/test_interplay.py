"""What happens in the middle of something else: acts at once, edits in an undo, lost routers."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from llmfleet.planning.snapshot import Snapshot
from tests.unit.planning.builders import silence
from tests.unit.planning.canaries import (
    annotate,
    at_share,
    canary,
    memory,
    rejected,
    split,
    started,
)
from tests.unit.planning.fleet import Fleet, hash_of
from tests.unit.planning.test_blue_green import blue_green
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_rollout import turn

pytestmark = pytest.mark.long


def undoing(share: int) -> tuple[Fleet, str, str]:
    """An undo on its way: the kept revision has ``share`` percent."""
    world, old, new = started(canary([{"setWeight": 25}]))
    world.settle()
    annotate(world, "undo", f"{old}@1")
    at_share(world, old, share)
    return world, old, new


def test_undo_when_spec_is_edited_in_its_middle_then_it_ends_before_the_new_one_starts() -> None:
    world, old, new = undoing(50)
    world.edit(model=model("three"))
    third, before = hash_of(world.raw), 50
    for _ in range(60):
        turn(world)
        world.wait(10)
        assert split(world).get(new, 0) <= before, "the rejected revision got more"
        before = split(world).get(new, 0)
        if split(world).get(third):
            assert set(split(world)) <= {old, third}
    assert split(world) == {third: 100}


def test_undo_when_status_is_lost_after_an_edit_then_what_was_not_judged_is_no_last_good() -> None:
    world, old, _ = undoing(50)
    world.edit(model=model("three"), rollout=canary([{"setWeight": 25}, {"pause": {}}]))
    third = hash_of(world.raw)
    at_share(world, third, 25)
    del world.raw["status"]
    turn(world, 3)
    assert split(world) == {old: 75, third: 25}


def test_abort_when_the_rollout_is_an_undo_then_it_is_refused_and_the_good_one_is_served() -> None:
    world, old, new = undoing(25)
    annotate(world, "abort", f"{old}@2")
    world.settle()
    assert f"retry chat --revision {new}`" in world.condition("ActRefused")["message"]
    assert split(world) == {old: 100}
    assert rejected(world) == {new: "UserUndo"}


@pytest.mark.parametrize("act", ["retry", "promote"])
def test_abort_when_another_act_came_with_it_then_it_is_kept_and_the_other_is_refused(
    act: str,
) -> None:
    world, old, new = started()
    at_share(world, new, 25)
    annotate(world, act, f"{new}@10:00")
    annotate(world, "abort", f"{new}@10:01")
    world.settle()
    assert split(world) == {old: 100}
    assert rejected(world) == {new: "UserAbort"}
    assert "came together with abort" in world.condition("ActRefused")["message"]
    assert set(world.status()["handledActs"]) == {act, "abort"}


def test_promote_when_the_rollout_has_no_steps_then_it_is_refused() -> None:
    world, _, new = started({"strategy": "RollingUpdate", "maxSurge": 1})
    annotate(world, "promote", f"{new}@1")
    turn(world)
    assert "without steps" in world.condition("ActRefused")["message"]


def unready(world: Fleet, revision: str) -> None:
    """One of its pods loses its readiness now, and stays so."""
    name = next(name for name, pod in world.pods.items() if pod.revision == revision)
    world.pods[name] = replace(world.pods[name], ready=False, unready_since=world.now)


def test_readiness_when_lost_long_after_the_start_then_it_is_no_failure_to_start() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    annotate(world, "pause", "true")
    world.wait(2 * 3600)
    for revision in (new, old):
        unready(world, revision)
        world.reconcile()
        assert rejected(world) == {}
    assert world.status()["phase"] == "Paused"
    for _ in range(8):
        world.wait(300)
        world.reconcile()
    assert rejected(world) == {new: "NeverReady"}


def test_blue_green_undo_when_a_warm_pod_is_missing_then_it_is_awaited_and_all_moves_at_once() -> (
    None
):
    world, old, new = started(blue_green(previewDuration="0s"))
    turn(world, 20)
    unready(world, old)
    annotate(world, "undo", f"{old}@1")
    for _ in range(5):
        world.reconcile()
        assert split(world) == {new: 100}
        assert world.replicas() == {old: 4, new: 4}
    turn(world, 2)
    assert split(world) == {old: 100}


def test_blue_green_undo_when_scaled_meanwhile_then_the_warm_set_grows_first() -> None:
    world, old, new = started(blue_green(previewDuration="0s"))
    turn(world, 20)
    world.edit(replicas=6)
    turn(world, 4)
    annotate(world, "undo", f"{old}@1")
    for _ in range(6):
        world.reconcile()
        if split(world) == {old: 100}:
            assert world.ready(old) == 6
        else:
            assert split(world) == {new: 100}
        world.kubelet()
        world.routers()
    assert split(world) == {old: 100}


def test_abort_when_pods_are_replaced_in_place_then_one_pod_at_most_is_missing() -> None:
    steps = [{"setWeight": 25}, {"setWeight": 50}, {"pause": {}}]
    world, old, new = started(canary(steps, maxSurge=0))
    at_share(world, new, 25)
    while world.replicas()[old] > 2:
        turn(world)
    world.pods = {  # its second pod is not ready yet
        name: replace(pod, ready=False) if name == second(world, new) else pod
        for name, pod in world.pods.items()
    }
    annotate(world, "abort", f"{new}@1")
    for _ in range(12):
        world.reconcile()
        wanted = world.replicas()
        kept = min(wanted.get(old, 0), world.ready(old)) + min(
            wanted.get(new, 0), world.ready(new) if split(world).get(new) else 0
        )
        assert kept >= 3 or split(world) == {old: 100}
        world.kubelet()
        world.routers()
        assert world.ready(old) >= 2
    world.settle()
    assert world.replicas() == {old: 4}


def second(world: Fleet, revision: str) -> str | None:
    names = sorted(name for name, pod in world.pods.items() if pod.revision == revision)
    return names[1] if len(names) > 1 else None


def silent(world: Fleet, since: datetime | None) -> Snapshot:
    """What is seen while one router does not answer."""
    seen = world.snapshot()
    name = min(pod.name for pod in seen.pods if pod.component == "router")
    return replace(seen, routers={**seen.routers, name: silence(since)})


def test_abort_when_a_router_is_silent_then_it_goes_on_after_the_drain_timeout() -> None:
    world, old, new = started(canary([{"setWeight": 25}, {"pause": {}}]))
    world.edit(router={"replicas": 2, "drainTimeout": "600s"})
    at_share(world, new, 25)
    since = world.now
    annotate(world, "abort", f"{new}@1")
    while world.now < since + timedelta(seconds=590):
        world.reconcile(snapshot=silent(world, since))
        assert world.replicas()[new] == 1, "its pods may still have requests"
        world.routers(1)  # the other one
        world.wait(30)
    assert 0 < (world.plans[-1].requeue_after or 0) <= 60
    said = world.condition("RoutersConfirmed")["message"]
    assert "is kept for them until 20" in said, said
    world.served.pop(min(world.served))  # whatever it was doing has ended by now
    messages = set()
    for _ in range(6):
        world.wait(30)
        world.reconcile(snapshot=silent(world, since))
        world.kubelet()
        messages.add(world.condition("RoutersConfirmed")["message"].partition("; ")[2])
    assert "what the rollout gave up goes away without them" in messages
    assert world.replicas() == {old: 4}


def test_promotion_when_a_router_is_silent_then_it_waits_however_long() -> None:
    world, old, new = started(canary([{"setWeight": 25}]))
    at_share(world, new, 25)
    since = world.now
    for _ in range(60):
        world.reconcile(snapshot=silent(world, since))
        world.kubelet()
        world.wait(60)
    assert world.status()["servedRevision"] == old


def test_settings_when_edited_in_a_rollout_then_the_message_says_to_what_they_apply() -> None:
    world, _, new = started()
    at_share(world, new, 25)
    assert "next rollout" not in world.status()["message"]
    world.edit(rollout=canary([{"setWeight": 10}]))
    turn(world)
    assert "changed rollout settings apply to the next rollout" in world.status()["message"]
    assert split(world)[new] == 25


def test_preview_when_its_requests_cannot_be_counted_then_a_person_is_asked() -> None:
    world, _, new = started(blue_green(minPreviewRequests=50, previewDuration="10s"))
    turn(world, 20)
    world.wait(3600)
    turn(world)
    assert world.status()["phase"] == "Paused"
    assert "50 requests" in world.condition("Paused")["message"]
    annotate(world, "promote", f"{new}@1")
    world.settle()
    assert split(world) == {new: 100}


def test_memory_when_an_undo_has_begun_then_last_good_is_what_it_goes_back_to() -> None:
    world, old, _ = undoing(50)
    assert f'"{old}"' in memory(world)["lastGood"]
