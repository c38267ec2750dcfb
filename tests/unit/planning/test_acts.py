"""What people ask for, and what is remembered of a rejection."""

from __future__ import annotations

import pytest

from tests.unit.planning.canaries import (
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
from tests.unit.planning.test_rollout import turn


def test_pause_when_it_has_no_duration_then_phase_is_paused_until_promoted() -> None:
    world, old, new = started(canary([{"setWeight": 25}, {"pause": {}}], progressDeadline="60s"))
    at_share(world, new, 25)
    world.wait(7200)
    turn(world, 2)
    assert world.status()["phase"] == "Paused"
    assert world.condition("Paused")["status"] == "True"
    assert world.condition("Ready")["status"] == "Unknown"
    assert world.condition("Reconciling")["status"] == "True"
    assert split(world) == {old: 75, new: 25}

    annotate(world, "promote", f"{new}@1")
    world.settle()
    assert world.status()["servedRevision"] == new
    assert world.status()["phase"] == "Healthy"
    assert world.status()["handledActs"] == {"promote": f"{new}@1"}
    assert memory(world)["handledActs"] == f'{{"promote":"{new}@1"}}'


def test_promote_when_it_says_full_then_all_steps_are_skipped() -> None:
    world, _, new = started()
    at_share(world, new, 25)
    annotate(world, "promote", f"{new}/full@1")
    turn(world, 40)
    assert world.status()["servedRevision"] == new


def test_promote_when_it_was_handled_then_the_same_value_never_runs_again() -> None:
    world, _, new = started(canary([{"setWeight": 25}, {"pause": {}}, {"pause": {}}]))
    at_share(world, new, 25)
    annotate(world, "promote", f"{new}@1")
    turn(world, 10)
    assert world.status()["rollout"]["step"] == 2
    annotate(world, "promote", f"{new}@2")
    turn(world, 40)
    assert world.status()["servedRevision"] == new


def test_undo_when_the_revision_was_never_served_then_it_is_refused() -> None:
    world, _, second = started(canary([{"setWeight": 25}, {"pause": {}}]))
    at_share(world, second, 25)
    world.edit(model=model("one"))
    world.settle()
    annotate(world, "undo", f"{second}@1")
    world.settle()
    assert "was never served" in world.condition("ActRefused")["message"]
    assert second not in split(world)


def test_undo_when_spec_asks_for_another_revision_meanwhile_then_that_one_is_rolled_out() -> None:
    world, old, new = started(canary([{"setWeight": 25}]))
    world.settle()
    assert world.status()["servedRevision"] == new
    world.broken |= {old}
    annotate(world, "undo", f"{old}@1")
    turn(world, 5)
    assert split(world) == {new: 100}
    world.edit(model=model("three"))
    world.settle()
    assert split(world) == {hash_of(world.raw): 100}


def test_promote_when_its_value_comes_back_after_another_one_then_it_does_not_run_again() -> None:
    world, _, new = started(
        canary([{"setWeight": 25}, {"pause": {}}, {"pause": {}}, {"pause": {}}])
    )
    at_share(world, new, 25)
    for token, step in (("a", 2), ("b", 3), ("a", 3)):
        annotate(world, "promote", f"{new}@{token}")
        turn(world, 10)
        assert world.status()["rollout"]["step"] == step


def test_promote_when_paused_by_annotation_then_it_is_refused_with_what_to_do() -> None:
    world, _, new = started()
    at_share(world, new, 25)
    annotate(world, "pause", "true")
    annotate(world, "promote", f"{new}@1")
    turn(world)
    assert world.status()["rollout"]["step"] == 1
    refused = world.condition("ActRefused")
    assert "comes while llmfleet.dev/pause is set: remove that first" in refused["message"]


@pytest.mark.parametrize("act", ["promote", "abort", "retry", "undo"])
@pytest.mark.parametrize("value", ["0123456789@1", "no form", "../@"])
def test_act_when_it_names_nothing_known_then_a_condition_says_so_and_nothing_changes(
    act: str, value: str
) -> None:
    world, old, new = started()
    at_share(world, new, 25)
    before = world.status()
    annotate(world, act, value)
    turn(world)
    assert world.condition("ActRefused")["status"] == "True"
    assert value in world.condition("ActRefused")["message"]
    assert split(world) == {old: 75, new: 25}
    assert world.status()["rollout"] == before["rollout"]
    assert world.events.count("ActRefused") == 1
    turn(world, 3)
    assert world.condition("ActRefused")["status"] == "True"
    assert world.events.count("ActRefused") == 1
    annotate(world, act, None)
    turn(world)
    assert world.condition("ActRefused") == {}


def test_acts_when_status_is_empty_then_they_are_recorded_and_not_run() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    annotate(world, "abort", f"{new}@1")
    world.raw = {key: value for key, value in world.raw.items() if key != "status"}
    turn(world, 3)
    assert world.status()["handledActs"] == {"abort": f"{new}@1"}
    assert rejected(world) == {}
    assert world.status()["servedRevision"] == old


def test_canary_when_there_is_no_room_then_it_waits_and_is_neither_aborted_nor_rejected() -> None:
    world, old, new = started(broken=True)
    world.kubelet()
    words = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    fail(world, new, {"unschedulable": words, "unschedulable_since": world.now})
    world.wait(86400)
    turn(world, 3)
    assert world.condition("CapacityAvailable")["status"] == "False"
    assert world.status()["phase"] == "Progressing"
    assert rejected(world) == {}
    assert world.replicas() == {old: 4, new: 1}


def test_abort_when_asked_for_then_it_is_rejected_and_spec_is_never_written() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    spec = world.raw["spec"]
    annotate(world, "abort", f"{new}@1")
    world.reconcile()
    assert split(world) == {old: 100}
    assert rejected(world) == {new: "UserAbort"}
    world.settle()
    assert world.replicas() == {old: 4}
    assert world.raw["spec"] == spec
    assert world.events.count("UserAbort") == 1


def rolled_back() -> tuple[Fleet, str, str]:
    world, old, new = started()
    at_share(world, new, 25)
    annotate(world, "abort", f"{new}@1")
    world.settle()
    assert rejected(world) == {new: "UserAbort"}
    return world, old, new


def test_argo_rollouts_faq_abort_when_steps_labels_or_replicas_are_edited_then_no_rollout() -> None:
    world, old, _ = rolled_back()
    world.edit(rollout=canary([{"setWeight": 10}]))
    world.settle()
    world.edit(replicas=5)
    world.settle()
    world.raw["metadata"]["labels"] = {"any": "thing"}
    world.settle()
    assert world.replicas() == {old: 5}
    assert split(world) == {old: 100}


def test_rejected_revision_when_the_object_is_created_again_then_the_last_good_one_serves() -> None:
    world, old, _ = rolled_back()
    found = next(each for key, each in world.objects.items() if key.kind == "ConfigMap")
    again = Fleet({key: value for key, value in world.raw.items() if key != "status"})
    again.objects[found.key] = found
    again.settle()
    assert split(again) == {old: 100}
    assert again.replicas() == {old: 4}
    assert again.condition("RolledBack")["status"] == "True"


def test_retry_when_a_rejected_revision_is_named_then_it_is_rolled_out_again() -> None:
    world, _, new = rolled_back()
    annotate(world, "retry", f"{new}@1")
    world.reconcile(crash_after=1)
    assert rejected(world) == {}
    at_share(world, new, 25)
    assert memory(world)["rejected"] == "[]"


def test_memory_when_status_is_lost_in_mid_canary_then_the_last_good_one_is_stable() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    world.raw = {key: value for key, value in world.raw.items() if key != "status"}
    world.reconcile()
    assert world.status()["servedRevision"] == old
    assert split(world).get(new, 0) <= 25
    at_share(world, new, 25)


def test_undo_when_the_served_revision_is_named_bad_then_a_kept_one_is_served_again() -> None:
    world, old, new = started(canary([{"setWeight": 25}]))
    world.settle()
    assert world.status()["servedRevision"] == new
    annotate(world, "undo", f"{old}@1")
    turn(world, 40)
    world.settle()
    assert split(world) == {old: 100}
    assert world.replicas() == {old: 4}
    assert rejected(world) == {new: "UserUndo"}
    assert world.status()["phase"] == "Degraded"


def test_undo_when_spec_is_edited_meanwhile_then_the_rejected_one_gets_no_more_traffic() -> None:
    world, old, new = started(canary([{"setWeight": 25}]))
    world.settle()
    annotate(world, "undo", f"{old}@1")
    turn(world, 2)
    share = split(world).get(new, 0)
    world.edit(model=model("three"))
    for _ in range(60):
        turn(world)
        assert split(world).get(new, 0) <= share
        share = split(world).get(new, 0)
    assert share == 0
    world.settle()
    assert split(world) == {hash_of(world.raw): 100}


def test_pause_annotation_when_set_then_nothing_moves_until_it_is_removed() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    annotate(world, "pause", "true")
    world.wait(4000)
    turn(world, 5)
    assert split(world) == {old: 75, new: 25}
    assert world.status()["phase"] == "Paused"
    annotate(world, "pause", None)
    at_share(world, new, 50)


@pytest.mark.parametrize(("window", "share"), [(0, 25), (1, 100)])
def test_spec_when_it_goes_back_within_the_rollback_window_then_the_steps_are_skipped(
    window: int, share: int
) -> None:
    steps = [{"setWeight": 25}, {"pause": {}}]
    world, old, new = started(canary(steps, rollbackWindow=window))
    at_share(world, new, 25)
    annotate(world, "promote", f"{new}/full@1")
    world.settle()
    assert world.status()["servedRevision"] == new
    world.edit(model=model("one"))
    turn(world, 40)
    assert split(world)[old] == share
    assert rejected(world) == {}


def test_spec_when_it_goes_back_further_than_the_window_then_it_goes_in_steps() -> None:
    steps = [{"setWeight": 25}, {"pause": {}}]
    world, first, second = started(canary(steps, rollbackWindow=1))
    at_share(world, second, 25)
    annotate(world, "promote", f"{second}/full@1")
    world.settle()
    world.edit(model=model("three"))
    third = hash_of(world.raw)
    at_share(world, third, 25)
    annotate(world, "promote", f"{third}/full@2")
    world.settle()
    assert world.status()["servedRevision"] == third
    world.edit(model=model("one"))
    turn(world, 40)
    assert split(world) == {third: 75, first: 25}
