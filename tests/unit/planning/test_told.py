"""What people are told, and what they mean when they answer (shared/cases/faults.md, section 9)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from llmfleet.planning.snapshot import JSON, ObjectKey, ObservedObject
from tests.unit.planning.canaries import annotate, at_share, canary, rejected, split, started
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.test_blue_green import at_preview, blue_green
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_events import told
from tests.unit.planning.test_rollout import turn

STEPS = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]
QUOTA = 'pods "chat-rev" is forbidden: exceeded quota: gpus, requested: 1, used: 4, limited: 4'


def at_a_pause() -> tuple[Fleet, str, str]:
    world, old, new = started(canary(STEPS))
    at_share(world, new, 25)
    turn(world, 2)
    assert world.status()["phase"] == "Paused"
    return world, old, new


def step(world: Fleet) -> Any:
    return world.status()["rollout"]["step"]


def sentences(world: Fleet) -> str:
    """All that stands in status, and all Events so far."""
    status = world.status()
    events = [event.message for plan in world.plans for event in plan.events]
    said = [each["message"] for each in status["conditions"]]
    return "\n".join([status["message"], *said, *events])


def test_promote_when_it_names_the_step_under_way_then_that_one_ends() -> None:
    world, _, new = at_a_pause()
    annotate(world, "promote", f"{new}/1@1")
    turn(world, 8)
    assert split(world)[new] == 50
    assert world.condition("ActRefused") == {}
    [done] = told(world, "ActDone")
    assert f"promote of {new} at step 2 of 4 (a pause until promoted)" in done.message


@pytest.mark.parametrize("act", ["promote", "abort"])
def test_act_when_its_step_is_over_then_it_is_not_carried_out_and_told(act: str) -> None:
    world, old, new = at_a_pause()
    annotate(world, "promote", f"{new}/1@1")
    turn(world, 8)
    assert step(world) == 3
    annotate(world, act, f"{new}/1@2")
    turn(world, 3)
    assert (step(world), split(world), rejected(world)) == (3, {old: 50, new: 50}, {})
    said = world.condition("ActRefused")["message"]
    assert said.endswith("names step 1, and step 3 of status.rollout was under way instead")
    [warning] = told(world, "ActRefused")
    assert warning.message == said


@pytest.mark.parametrize(("act", "value"), [("retry", "/1@1"), ("undo", "/1@1"), ("abort", "/x@1")])
def test_act_when_no_step_can_be_meant_then_naming_one_is_refused(act: str, value: str) -> None:
    world, old, new = at_a_pause()
    subject = old if act == "undo" else new
    annotate(world, act, f"{subject}{value}")
    turn(world)
    assert world.condition("ActRefused")["status"] == "True"
    assert split(world) == {old: 75, new: 25}


def test_promote_when_all_steps_are_over_then_it_is_refused_instead_of_lost() -> None:
    world, _, new = at_a_pause()
    annotate(world, "promote", f"{new}/full@1")
    world.reconcile()
    assert step(world) == 4
    annotate(world, "promote", f"{new}@2")
    world.reconcile()
    assert "whose steps are all over" in world.condition("ActRefused")["message"]


def test_wait_when_a_step_was_promoted_before_it_was_served_then_the_next_pause_is_announced() -> (
    None
):
    world, _, new = started(canary(STEPS))
    annotate(world, "promote", f"{new}/0@1")
    world.reconcile()
    assert step(world) == 1
    assert world.status()["message"].endswith("; then a pause until promoted")


def test_abort_when_it_is_carried_out_then_the_bell_rings_once_and_all_is_told() -> None:
    world, _, new = at_a_pause()
    annotate(world, "abort", f"{new}@1")
    plan = world.reconcile()
    assert [event.reason for event in plan.events if not event.detail] == ["UserAbort"]
    details = {event.reason for event in plan.events if event.detail}
    assert details >= {"ActDone", "RevisionRejected", "Degraded"}
    for later in (turn(world), world.reconcile()):
        assert later is None or not [event for event in later.events if event.detail]


@pytest.mark.parametrize(
    ("replicas", "surge", "expected"), [(2, 0, "2/2"), (4, 1, "5/4")], ids=["in place", "surge"]
)
def test_ready_when_two_revisions_serve_then_the_pods_of_both_are_counted(
    replicas: int, surge: int, expected: str
) -> None:
    share = 100 // replicas
    policy = canary([{"setWeight": share}, {"pause": {}}], maxSurge=surge)
    world, old, new = started(policy, replicas)
    assert world.status()["ready"] == f"{replicas}/{replicas}"
    at_share(world, new, share)
    turn(world, 3)
    assert (world.ready(old), world.ready(new)) == (replicas - 1 + surge, 1)
    assert world.status()["ready"] == expected


def test_ready_when_a_new_set_waits_at_its_preview_then_it_does_not_count() -> None:
    world, _, new = started(blue_green(promotion="Manual"))
    at_preview(world, new)
    turn(world, 3)
    assert world.ready(new) == 4
    assert world.status()["ready"] == "4/4"


def test_ready_when_the_first_pods_get_ready_then_they_count_before_they_serve() -> None:
    world = Fleet(resource(replicas=2))
    for _ in range(6):
        turn(world)
        if world.ready(hash_of(world.raw)) == 2:
            break
    world.reconcile()
    assert world.status()["ready"] == "2/2"


def taken(name: str, **meta: Any) -> ObservedObject:
    key = ObjectKey(api_version="v1", kind="Service", name=name)
    owner = (meta.get("ownerReferences") or [{"uid": None}])[0]["uid"]
    body: JSON = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, **meta}}
    return ObservedObject(
        key=key, uid="taken", resource_version="9", owner_uid=owner, deleting=False, body=body
    )


OTHER = {"kind": "LLMDeployment", "name": "chat-preview", "uid": "other", "controller": True}


@pytest.mark.parametrize(
    ("meta", "who"),
    [
        ({"ownerReferences": [OTHER]}, "LLMDeployment chat-preview"),
        ({"ownerReferences": [{**OTHER, "name": "chat"}]},
         "the LLMDeployment chat that was deleted, with which it goes"),
        ({"labels": {"app.kubernetes.io/instance": "web"}}, "the release web"),
        ({"labels": {"app.kubernetes.io/managed-by": "Pulumi"}}, "whoever made it with Pulumi"),
        ({"managedFields": [{"manager": "kubectl"}]}, "whoever made it with kubectl"),
        ({}, "nobody who says so"),
    ],
)  # fmt: skip
def test_preview_when_its_name_is_taken_then_no_address_is_told_and_who_has_it_is(
    meta: JSON, who: str
) -> None:
    world = Fleet(resource(replicas=4, rollout=blue_green(promotion="Manual")))
    found = taken("chat-preview", **meta)
    world.objects[found.key] = found
    world.settle()
    world.edit(model=model("two"))
    turn(world, 15)
    assert world.ready(hash_of(world.raw)) == 4
    assert "previewUrl" not in world.status()
    assert world.status()["url"] == "http://chat.team-a.svc"
    assert "preview address leads" not in sentences(world)
    assert "http://chat-preview" not in sentences(world)
    said = world.condition("NameTaken")["message"]
    assert f"Service chat-preview belongs to {who} and is left alone" in said
    assert said.endswith("chat has no preview address meanwhile")

    del world.objects[found.key]
    turn(world, 2)
    assert world.status()["previewUrl"] == "http://chat-preview.team-a.svc"


def test_address_when_the_name_of_its_service_is_taken_then_there_is_none() -> None:
    world = Fleet(resource())
    found = taken("chat", ownerReferences=[{**OTHER, "kind": "Gateway", "name": "edge"}])
    world.objects[found.key] = found
    world.settle()
    assert "url" not in world.status()
    assert "Service chat belongs to Gateway edge" in world.status()["message"]
    assert "chat has no address meanwhile" in world.status()["message"]


def test_headline_when_a_quota_is_in_the_way_then_it_leads_it() -> None:
    world, _, new = started(canary(STEPS))
    for _ in range(4):
        world.refuse(f"chat-rev-{new}", QUOTA)
        world.pods = {name: pod for name, pod in world.pods.items() if pod.revision != new}
        world.reconcile()
        world.wait(5)
    assert world.condition("CapacityAvailable")["reason"] == "QuotaExceeded"
    assert world.status()["message"].startswith(f"quota refuses pods of revision {new}: {QUOTA}; ")
    assert world.condition("Ready")["message"] == world.status()["message"]


def test_recreated_object_when_its_spec_is_another_then_it_says_what_was_served_before() -> None:
    world = Fleet(resource())
    world.settle()
    good = hash_of(world.raw)
    kept = next(found for key, found in world.objects.items() if key.kind == "ConfigMap")
    world.edit(model=model("two"))
    new = hash_of(world.raw)
    again = Fleet({key: copy.deepcopy(each) for key, each in world.raw.items() if key != "status"})
    again.objects[kept.key] = replace(kept)
    turn(again, 2)
    text = f"{good} was served under this name before it was deleted"
    assert text in told(again, "RolloutStarted")[-1].message
    assert text in again.status()["message"]
    assert f"to compare {new} with" in again.status()["message"]
    again.settle()
    assert text not in sentences(again).splitlines()[0]
