"""Conditions, and the cases in which nothing may be done."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from llmfleet.api import STATUS_SCHEMA
from llmfleet.planning.decide import decide
from llmfleet.planning.snapshot import JSON, ObjectKey, ObservedObject, Snapshot
from tests.unit.planning.builders import silence
from tests.unit.planning.canaries import canary
from tests.unit.planning.fleet import SETTINGS, UID, Fleet, hash_of, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import CASES


def conditions(status: JSON | None) -> dict[str, JSON]:
    assert status is not None
    return {each["type"]: each for each in status["conditions"]}


def foreign_object(key: ObjectKey, owner_uid: str | None = "other") -> ObservedObject:
    return ObservedObject(
        key=key, uid="theirs", resource_version="1", owner_uid=owner_uid, deleting=False, body={}
    )


REFUSED: dict[str, tuple[JSON, str]] = {
    "unknown field": ({"engine": {"newField": 1}}, "UnknownField"),
    "file source": (
        {"model": {"source": "file:///models/x", "servedName": "tiny"}},
        "SourceNotAllowed",
    ),
    "unknown source": ({"model": {"source": "oci://r/x", "servedName": "tiny"}}, "InvalidSpec"),
}


@pytest.mark.parametrize(("spec", "reason"), REFUSED.values(), ids=REFUSED)
def test_spec_when_it_cannot_be_accepted_then_what_is_served_stays(spec: JSON, reason: str) -> None:
    world = Fleet(resource())
    world.settle()
    old = hash_of(world.raw)

    world.edit(**spec)
    world.settle()

    assert world.condition("Accepted")["status"] == "False"
    assert world.condition("Accepted")["reason"] == reason
    assert world.status()["phase"] == "Degraded"
    assert world.status()["traffic"] == [{"revision": old, "weight": 100}]
    assert world.replicas() == {old: 2}

    world.edit(replicas=3)
    world.settle()
    assert world.replicas() == {old: 3}


def test_spec_when_a_field_is_not_built_yet_then_accepted_names_it() -> None:
    world = Fleet(resource(drift={"action": "Alert"}))
    found = conditions(world.decide().status)["Accepted"]
    assert (found["status"], found["reason"]) == ("True", "NotYetBuilt")
    assert "drift.action" in found["message"]


def test_file_source_when_the_operator_allows_it_then_it_is_accepted() -> None:
    world = Fleet(
        resource(model={"source": "file:///m", "servedName": "tiny"}),
        settings=replace(SETTINGS, allow_file_sources=True),
    )
    assert conditions(world.decide().status)["Accepted"]["status"] == "True"


def test_status_when_its_schema_is_newer_then_nothing_is_decided() -> None:
    raw = {**resource(), "status": {"schema": STATUS_SCHEMA + 1}}
    plan = Fleet(raw).decide()
    assert (plan.status, plan.children, plan.deletions) == (None, (), ())
    assert [event.reason for event in plan.events] == ["NewerStatusSchema"]


def test_object_when_it_is_being_deleted_then_nothing_is_done() -> None:
    raw = resource()
    raw["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    plan = Fleet(raw).decide()
    assert (plan.status, plan.children, plan.deletions) == (None, (), ())


def test_crd_when_it_is_outdated_then_no_new_revision_but_the_fleet_lives_on() -> None:
    world = Fleet(resource())
    world.settle()
    old = hash_of(world.raw)
    world.settings = replace(SETTINGS, crd_outdated=True)
    world.settle()
    assert world.status()["phase"] == "Healthy"

    world.edit(model=model("two"))
    world.settle()

    assert world.condition("Progressing")["reason"] == "Blocked"
    assert "apply the CRD" in world.status()["message"]
    assert world.replicas() == {old: 2}


@pytest.mark.parametrize("owner", ["other", None], ids=["another controller", "nobody"])
def test_name_when_it_is_taken_then_the_object_is_left_alone(owner: str | None) -> None:
    world = Fleet(resource())
    key = ObjectKey(api_version="v1", kind="Service", name="chat")
    world.objects[key] = foreign_object(key, owner)

    plan = world.decide()

    found = conditions(plan.status)
    assert found["NameTaken"]["status"] == "True"
    assert "Service chat" in found["NameTaken"]["message"]
    assert found["Ready"]["status"] == "False"
    assert key not in {child.key for child in plan.children}
    assert "NameTaken" in {event.reason for event in plan.events}


def test_child_when_the_api_server_refused_it_then_progressing_says_so_and_serving_goes_on() -> (
    None
):
    world = Fleet(resource())
    world.settle()
    key = ObjectKey(api_version="apps/v1", kind="Deployment", name="chat-router")
    sentence = "exceeded quota: none"
    plan = world.decide(replace(world.snapshot(), refusals={key: sentence}))

    found = conditions(plan.status)
    assert (found["Progressing"]["status"], found["Progressing"]["reason"]) == (
        "False",
        "ChildRefused",
    )
    assert found["Ready"]["message"] == f"Deployment chat-router was refused: {sentence}"
    assert found["Available"]["status"] == "True"
    gone = ObjectKey(api_version="v1", kind="Service", name="not-wanted")
    plan = world.decide(replace(world.snapshot(), refusals={gone: sentence}))
    assert conditions(plan.status)["Ready"]["status"] == "True"


def test_template_when_nothing_remembers_it_then_a_condition_says_so_and_it_keeps_running() -> None:
    world = Fleet(resource())
    world.settle()
    old = hash_of(world.raw)
    world.edit(model=model("two"))
    world.broken = frozenset({hash_of(world.raw)})
    world.settle(rounds=5)
    for key in list(world.objects):
        if key.name in {f"chat-rev-{old}", "chat-llmfleet-memory"} and key.kind in {
            "ControllerRevision",
            "ConfigMap",
        }:
            del world.objects[key]

    plan = world.reconcile()

    found = conditions(plan.status)["Progressing"]
    assert (found["status"], found["reason"]) == ("False", "TemplateLost")
    assert old in found["message"]
    assert old in world.replicas()


def test_rollout_when_nothing_remembers_the_served_template_then_it_still_arrives() -> None:
    world = Fleet(resource(rollout=canary([{"setWeight": 50}])))
    world.settle()
    old = hash_of(world.raw)
    world.edit(model=model("two"))
    forgotten = {f"chat-rev-{old}", "chat-llmfleet-memory"}
    for key in [key for key in world.objects if key.name in forgotten]:
        if key.kind in {"ControllerRevision", "ConfigMap"}:
            del world.objects[key]
    world.reconcile()
    deployment = ObjectKey(api_version="apps/v1", kind="Deployment", name=f"chat-rev-{old}")
    template = world.objects[deployment].body["spec"]["template"]
    for _ in range(40):
        world.reconcile()
        world.kubelet()
        world.routers()
        if deployment in world.objects:
            assert world.objects[deployment].body["spec"]["template"] == template
        world.wait(60)
    assert world.replicas() == {hash_of(world.raw): 2}
    assert world.status()["phase"] == "Healthy"


def test_pod_when_no_node_has_room_for_10_s_then_capacity_says_so_and_the_clock_stands() -> None:
    world = Fleet(resource(replicas=1))
    world.reconcile()
    revision = hash_of(world.raw)
    sentence = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    pod = world.add_pod(revision, unschedulable=sentence, unschedulable_since=world.now)
    world.wait(9)
    plan = world.reconcile()
    assert conditions(plan.status)["CapacityAvailable"]["status"] == "True"
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 3

    world.wait(2)
    found = conditions(world.reconcile().status)["CapacityAvailable"]
    assert (found["status"], found["reason"]) == ("False", "Unschedulable")
    assert sentence in found["message"]

    world.wait(7200)
    world.reconcile()
    assert world.status()["phase"] == "Progressing"
    del world.pods[pod]
    world.settle()
    assert world.status()["phase"] == "Healthy"


def test_quota_when_it_refuses_pods_then_capacity_tells_its_sentence() -> None:
    world = Fleet(resource())
    world.reconcile()
    world.refuse(f"chat-rev-{hash_of(world.raw)}", "exceeded quota: gpus")
    found = conditions(world.decide().status)["CapacityAvailable"]
    assert (found["status"], found["reason"]) == ("False", "QuotaExceeded")
    assert "exceeded quota: gpus" in found["message"]


FATAL = {
    "secret missing": (CASES["secret"][0], "SecretMissing", "Progressing"),
    "claim missing": (CASES["claim"][0], "ClaimMissing", "Progressing"),
}


@pytest.mark.parametrize(("facts", "reason", "phase"), FATAL.values(), ids=FATAL)
def test_new_revision_when_its_pod_fails_then_progressing_has_the_reason_and_old_serves(
    facts: dict[str, Any], reason: str, phase: str
) -> None:
    world = Fleet(resource(), broken=frozenset({hash_of(resource(model=model("two")))}))
    world.settle()
    old = hash_of(world.raw)
    world.edit(model=model("two"))
    world.reconcile()
    world.kubelet()
    for name, pod in world.pods.items():
        if pod.revision == hash_of(world.raw):
            world.pods[name] = replace(pod, **facts)
    world.reconcile()

    assert world.condition("Progressing")["reason"] == reason
    assert world.status()["phase"] == phase
    assert world.condition("Available")["status"] == "True"
    assert world.condition("CapacityAvailable")["message"] == "no pod has waited for room for 10 s"
    assert world.status()["servedRevision"] == old


def test_router_when_it_is_silent_then_confirmation_is_unknown_and_nothing_is_taken_away() -> None:
    world = Fleet(resource(replicas=1))
    world.settle()
    old = hash_of(world.raw)
    world.edit(model=model("two"))
    for _ in range(5):
        seen = _silenced(world.snapshot())
        world.reconcile(snapshot=seen)
        world.kubelet()
        world.wait(60)
    plan = world.decide(_silenced(world.snapshot()))

    found = conditions(plan.status)["RoutersConfirmed"]
    assert (found["status"], found["reason"]) == ("Unknown", "Silent")
    assert world.replicas()[old] == 1
    assert world.status()["servedRevision"] == old


def _silenced(seen: Snapshot) -> Snapshot:
    name = next(pod.name for pod in seen.pods if pod.component == "router")
    return replace(seen, routers={**seen.routers, name: silence()})


def test_restored_object_when_status_is_empty_and_pods_serve_then_they_are_kept() -> None:
    world = Fleet(resource())
    world.settle()
    old = hash_of(world.raw)
    world.edit(model=model("two"))
    world.raw = {key: value for key, value in world.raw.items() if key != "status"}

    world.reconcile()
    assert world.replicas()[old] == 2
    assert world.status()["traffic"] == [{"revision": old, "weight": 100}]
    world.settle()
    assert world.status()["servedRevision"] == hash_of(world.raw)


def test_status_when_it_names_a_revision_that_never_was_then_what_is_up_is_served() -> None:
    world = Fleet(resource())
    world.settle()
    real = world.status()["servedRevision"]
    world.raw["status"] |= {
        "servedRevision": "forged",
        "traffic": [{"revision": "forged", "weight": 100}],
    }

    world.settle()

    assert world.status()["servedRevision"] == real
    assert world.status()["traffic"] == [{"revision": real, "weight": 100}]
    assert world.status()["phase"] == "Healthy"


def test_status_when_it_names_what_never_was_and_nothing_is_up_then_spec_is_rolled_out() -> None:
    world = Fleet(resource())
    world.raw["status"] = {
        "schema": 1,
        "trafficGeneration": 3,
        "servedRevision": "forged",
        "traffic": [{"revision": "forged", "weight": 100}],
    }

    plan = decide(world.snapshot(), world.now)

    assert plan.status is not None
    assert plan.status["traffic"] == [{"revision": "forged", "weight": 100}]  # until one is ready
    assert f"chat-rev-{hash_of(world.raw)}" in {child.key.name for child in plan.children}


def test_recreated_object_when_its_spec_was_rejected_then_the_last_good_one_is_served() -> None:
    world = Fleet(resource())
    world.settle()
    good = hash_of(world.raw)
    world.edit(model=model("two"))
    bad = hash_of(world.raw)
    memory = next(found for key, found in world.objects.items() if key.kind == "ConfigMap")
    body = copy.deepcopy(memory.body)
    body["data"]["rejected"] = f'[["{bad}","ErrorRateRegression"]]'
    again = Fleet({key: value for key, value in world.raw.items() if key != "status"})
    again.objects[memory.key] = replace(memory, body=body)

    again.settle()

    assert again.status()["servedRevision"] == good
    assert again.replicas() == {good: 2}
    assert again.condition("RolledBack")["status"] == "True"
    assert again.status()["phase"] == "Degraded"


def test_recreated_object_when_its_spec_is_the_same_then_pods_mount_its_own_token() -> None:
    world = Fleet(resource())
    world.settle()
    memory = next(found for key, found in world.objects.items() if key.kind == "ConfigMap")
    raw = copy.deepcopy({key: value for key, value in world.raw.items() if key != "status"})
    raw["metadata"]["uid"] = "77777777-0000-4000-8000-000000000002"
    again = Fleet(raw)
    again.objects[memory.key] = memory

    again.settle()

    bodies = [found.body for key, found in again.objects.items() if key.kind == "Deployment"]
    mounted = {
        volume["secret"]["secretName"]
        for body in bodies
        for volume in body["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "llmfleet-token"
    }
    assert mounted == {"chat-token-77777777"}


def test_restored_object_when_acts_are_annotated_then_they_count_as_handled() -> None:
    raw = resource()
    raw["metadata"]["annotations"] = {"llmfleet.dev/promote": "7c9f@17"}
    plan = Fleet(raw).decide()
    assert plan.status is not None
    assert plan.status["handledActs"] == {"promote": "7c9f@17"}


def test_operator_upgrade_when_the_runtime_is_newer_then_no_engine_pod_changes() -> None:
    world = Fleet(resource())
    world.settle()
    revision = hash_of(world.raw)
    key = ObjectKey(api_version="apps/v1", kind="Deployment", name=f"chat-rev-{revision}")
    before = world.objects[key].body

    world.settings = replace(SETTINGS, runtime_image_gpu="runtime:newer")
    world.settle()

    assert world.objects[key].body == before
    assert world.condition("RuntimeOutdated")["reason"] == "NewerRuntimeAvailable"
    assert world.status()["phase"] == "Healthy"


def test_history_when_many_revisions_were_made_then_only_the_limit_is_kept() -> None:
    world = Fleet(resource(replicas=1))
    spec = {**world.raw["spec"]["rollout"], "revisionHistoryLimit": 2}
    world.edit(rollout=spec)
    for number in range(6):
        world.edit(model=model(f"m{number}"))
        world.settle()
    kept = [key for key in world.objects if key.kind == "ControllerRevision"]
    assert len(kept) == 3
    assert len(world.status()["revisions"]) == 3


def test_scale_to_zero_when_spec_changes_too_then_the_new_revision_waits() -> None:
    world = Fleet(resource())
    world.settle()
    old = hash_of(world.raw)
    world.edit(replicas=0, model=model("two"))
    world.settle()
    assert world.replicas() == {old: 0}
    assert world.condition("Progressing")["reason"] == "WaitingForDemand"

    world.edit(replicas=1)
    world.settle()
    assert world.replicas() == {hash_of(world.raw): 1}


def test_conditions_when_only_time_passes_then_their_times_stay() -> None:
    world = Fleet(resource())
    world.settle()
    before = world.status()["conditions"]
    world.now += timedelta(days=1)
    plan = world.decide()
    assert plan.status is not None
    assert plan.status["conditions"] == before
    assert plan.events == ()
    assert world.raw["metadata"]["uid"] == UID


def test_status_when_spec_is_edited_then_status_and_conditions_name_its_generation() -> None:
    world = Fleet(resource())
    world.settle()
    world.edit(replicas=3)
    world.reconcile()
    generation = world.raw["metadata"]["generation"]
    assert generation == 2
    assert world.status()["observedGeneration"] == generation
    assert {each["observedGeneration"] for each in world.status()["conditions"]} == {generation}
