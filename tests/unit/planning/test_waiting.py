"""Pods that may not be made, or not be placed: told in the words of whoever holds them back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmfleet.planning.decide import decide
from llmfleet.planning.snapshot import Hindrance, ObservedReplicaSet, PodWarning, Termination
from tests.unit.planning.canaries import (
    STEPS,
    annotate,
    at_share,
    canary,
    fail,
    rejected,
    split,
    started,
)
from tests.unit.planning.fleet import START, Fleet, hash_of, resource
from tests.unit.planning.test_rollout import turn

KUEUE = "kueue.x-k8s.io/admission"
REFUSALS = {
    "LimitRange": 'pods "chat-rev-1-a" is forbidden: maximum memory usage per Container is 1Gi',
    "PodSecurity": 'pods "chat-rev-1-a" is forbidden: violates PodSecurity "restricted:latest"',
    "webhook": 'admission webhook "policy.example" denied the request: no label team',
    "quota": 'pods "chat-rev-1-a" is forbidden: failed quota: all: must specify limits.cpu',
}


def capacity(world: Fleet) -> tuple[str, str, str]:
    found = world.condition("CapacityAvailable")
    return found["status"], found["reason"], found["message"]


@pytest.mark.parametrize("sentence", REFUSALS.values(), ids=REFUSALS)
def test_canary_when_its_pods_are_not_admitted_then_it_waits_with_the_sentence(
    sentence: str,
) -> None:
    world, old, new = started(canary(STEPS, progressDeadline="5m"))
    world.refuse(f"chat-rev-{new}", sentence)
    world.broken = frozenset({new})
    world.reconcile()
    status, reason, message = capacity(world)
    assert (status, reason) == ("False", "AdmissionRefused")
    assert message.endswith(f"pods of revision {new}: {sentence}")

    world.wait(36000)
    world.reconcile()
    assert (split(world), rejected(world)) == ({old: 100}, {})
    assert world.status()["phase"] == "Progressing"

    world.refuse(f"chat-rev-{new}", None)
    world.broken = frozenset()
    turn(world, 10)
    assert capacity(world)[0] == "True"
    assert split(world)[new] == 25


def test_routers_when_they_are_not_admitted_then_capacity_tells_the_sentence() -> None:
    world = Fleet(resource())
    world.settle()
    sentence = REFUSALS["quota"]
    world.refuse("chat-router", sentence)
    world.reconcile()
    message = f"the API server does not admit router pods: {sentence}"
    assert capacity(world) == ("False", "AdmissionRefused", message)


ROUTERS_TROUBLE: dict[str, tuple[dict[str, Any], str]] = {
    "image": (
        {"waiting_reason": "ErrImagePull", "waiting_message": "unauthorized"},
        "cannot pull its image: unauthorized",
    ),
    "token": (
        {
            "sandbox_missing_since": START,
            "warning": PodWarning(reason="FailedMount", message='secret "chat-token" not found'),
        },
        'needs a Secret that is missing: secret "chat-token" not found',
    ),
    "uid range": (
        {"waiting_reason": "CreateContainerConfigError", "waiting_message": "runAsUser"},
        "runAsUser",
    ),
    "crash": (
        {
            "waiting_reason": "CrashLoopBackOff",
            "restarts": 3,
            "last_termination": Termination(
                exit_code=1, reason="Error", message="no rights", finished_at=START
            ),
        },
        "ended with exit code 1: no rights",
    ),
    "memory": (
        {
            "waiting_reason": "CrashLoopBackOff",
            "restarts": 3,
            "last_termination": Termination(
                exit_code=137, reason="OOMKilled", message="", finished_at=START
            ),
        },
        "raise spec.router.podTemplate.resources.limits.memory, or lower spec.router.bodyLimit",
    ),
    "sidecar": (
        {"hindrance": Hindrance(text="its container mesh waits (ErrImagePull): no", failed=True)},
        "cannot get ready: its container mesh waits",
    ),
    "node": ({"node_lost": True, "node": "n7"}, "its node n7 is not ready"),
}


def routers_of(world: Fleet) -> list[str]:
    return sorted(name for name, pod in world.pods.items() if pod.component == "router")


@pytest.mark.parametrize(("facts", "words"), ROUTERS_TROUBLE.values(), ids=ROUTERS_TROUBLE)
def test_router_when_its_pod_does_not_come_then_available_says_why(
    facts: dict[str, Any], words: str
) -> None:
    world = Fleet(resource())
    world.settle()
    first, *others = routers_of(world)
    world.pods[first] = replace(world.pods[first], ready=False, **facts)
    world.reconcile()
    found = world.condition("Available")
    assert found["status"] == "True"
    assert f"; router pod {first} " in found["message"]
    assert words in found["message"]
    for other in others:
        world.pods[other] = replace(world.pods[other], ready=False)
    world.reconcile()
    found = world.condition("Available")
    assert (found["status"], found["reason"]) == ("False", "NoReadyRouters")
    assert words in found["message"]


def test_router_when_no_node_takes_it_then_capacity_says_so() -> None:
    world = Fleet(resource())
    world.settle()
    name = routers_of(world)[0]
    taint = "0/3 nodes are available: 3 node(s) had untolerated taint {gpu: only}."
    waits = {"unschedulable": taint, "unschedulable_since": world.now, "node": None}
    world.pods[name] = replace(world.pods[name], ready=False, **waits)
    plan = world.reconcile()
    assert capacity(world)[0] == "True"
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 11
    world.wait(10)
    world.reconcile()
    message = f"one router pod waits for room: {taint}"
    assert capacity(world) == ("False", "Unschedulable", message)


def test_router_when_it_runs_and_waits_for_a_first_revision_then_nothing_is_told() -> None:
    world = Fleet(resource())
    world.broken = frozenset({hash_of(world.raw)})
    turn(world, 3)
    for name in routers_of(world):
        end = Termination(exit_code=1, reason="Error", message="past", finished_at=START)
        past = {"restarts": 1, "last_termination": end, "running_since": world.now}
        world.pods[name] = replace(world.pods[name], ready=False, phase="Running", **past)
    world.wait(10000)
    world.reconcile()
    assert world.condition("Available")["message"] == "no revision has had a ready pod yet"


def test_refusal_when_no_pod_is_wanted_or_the_deployment_is_not_ours_then_it_is_not_told() -> None:
    world = Fleet(resource(replicas=0))
    world.settle()
    world.refuse(f"chat-rev-{hash_of(world.raw)}", "exceeded quota: none")
    orphan = ObservedReplicaSet(uid="theirs", controller=None, refused="exceeded quota: theirs")
    world.replica_sets["theirs"] = orphan
    world.reconcile()
    assert capacity(world)[0] == "True"


def test_canary_when_a_gate_holds_its_pod_then_it_waits_by_its_name_and_no_deadline_runs() -> None:
    world, old, new = started(canary(STEPS, progressDeadline="5m"), broken=True)
    world.kubelet()
    name = next(name for name, pod in world.pods.items() if pod.revision == new)
    world.pods[name] = replace(world.pods[name], gates=(KUEUE,))
    world.wait(9)
    plan = world.reconcile()
    assert capacity(world)[0] == "True"
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 2

    world.wait(1)
    world.reconcile()
    status, reason, message = capacity(world)
    assert (status, reason) == ("False", "SchedulingGated")
    assert KUEUE in message

    world.wait(36000)
    world.reconcile()
    assert (split(world), rejected(world)) == ({old: 100}, {})
    assert world.status()["phase"] == "Progressing"

    world.pods[name] = replace(world.pods[name], gates=())
    world.broken = frozenset()
    turn(world, 10)
    assert split(world)[new] == 25


def test_gates_when_other_pods_lack_room_then_the_scheduler_is_heard_first() -> None:
    world = Fleet(resource(replicas=2))
    world.reconcile()
    revision = hash_of(world.raw)
    world.add_pod(revision, gates=(KUEUE,))
    world.add_pod(revision, unschedulable="0/1 nodes are available.", unschedulable_since=world.now)
    world.wait(10)
    world.reconcile()
    message = "2 engine pods wait for room: 0/1 nodes are available."
    assert capacity(world) == ("False", "Unschedulable", message)


def test_routers_when_nodes_refuse_them_then_available_says_why_until_they_are_there() -> None:
    world = Fleet(resource())
    world.settle()
    first, second = routers_of(world)
    refused = {"reason": "OutOfpods", "message": "Too many pods", "node": "n2"}
    made = world.pods[first]
    for name in (first, second):
        world.pods[name] = replace(made, name=name, phase="Failed", ready=False, **refused)
    world.reconcile()
    found = world.condition("Available")
    assert (found["status"], found["reason"]) == ("False", "NoReadyRouters")
    words = "node n2 refuses a router pod that was given to it (OutOfpods): Too many pods"
    assert found["message"].endswith(words)
    for name in ("new-1", "new-2"):
        world.pods[name] = replace(made, name=name, uid=name)
    world.reconcile()
    assert "n2" not in world.condition("Available")["message"]


ROUTERS_HELD: dict[str, str] = {
    "refused": "the API server does not admit router pods: no room for them",
    "unschedulable": "waits for room: 0/3 nodes are available",
}


@pytest.mark.parametrize("how", ROUTERS_HELD)
def test_routers_when_engines_lack_room_too_then_the_outage_has_its_own_reason(how: str) -> None:
    world = Fleet(resource())
    world.settle()
    full = {"unschedulable": "no accelerator", "unschedulable_since": START, "node": None}
    world.add_pod(hash_of(world.raw), **full)
    for name in routers_of(world):
        world.pods[name] = replace(world.pods[name], ready=False)
        if how == "unschedulable":
            full["unschedulable"] = "0/3 nodes are available"
            world.pods[name] = replace(world.pods[name], **full)
    if how == "refused":
        world.refuse("chat-router", "no room for them")
    world.reconcile()
    assert ROUTERS_HELD[how] in world.condition("Available")["message"]


@pytest.mark.parametrize("replicas", [0, 2])
def test_pod_when_it_should_have_ended_long_ago_then_it_is_told_with_its_node(
    replicas: int,
) -> None:
    world = Fleet(resource(replicas=replicas))
    world.settle()
    ends = {"deleting": True, "ends_at": world.now, "node": "gpu-9", "phase": "Running"}
    name = world.add_pod(hash_of(world.raw), **ends)
    world.wait(119)
    plan = world.reconcile()
    assert name not in world.condition("Progressing")["message"]
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 2
    world.wait(1)
    world.reconcile()
    found = world.condition("Progressing")
    assert (found["status"], found["reason"]) == ("True", "Stable")
    assert f"engine pod {name} on node gpu-9 should have ended at" in found["message"]
    second = world.add_pod(hash_of(world.raw), **ends)
    world.reconcile()
    assert "gpu-9 and 1 other should" in world.condition("Progressing")["message"]
    del world.pods[name], world.pods[second]
    world.reconcile()
    assert "gpu-9" not in world.condition("Progressing")["message"]


def test_canary_when_it_goes_back_and_the_served_pods_do_not_come_then_their_reason_is_told() -> (
    None
):
    world, old, new = started(canary(STEPS))
    at_share(world, new, 25)
    annotate(world, "abort", f"{new}@1")
    fail(world, old, {"waiting_reason": "ErrImagePull", "waiting_message": "gone", "node": "n1"})
    turn(world, 3)
    found = world.condition("Progressing")
    assert (found["status"], found["reason"]) == ("True", "ShiftingTraffic")
    assert "until ready pods can take it over; engine pod" in found["message"]
    assert "cannot pull its image: gone" in found["message"]


def test_capacity_when_a_pod_waits_for_its_claim_then_no_pod_is_said_to_have_found_room() -> None:
    world = Fleet(resource(replicas=1))
    world.reconcile()
    missing = 'persistentvolumeclaim "models" not found'
    world.add_pod(hash_of(world.raw), unschedulable=missing, unschedulable_since=world.now)
    world.wait(20)
    world.reconcile()
    assert capacity(world) == (
        "True",
        "Scheduled",
        "no pod has waited for room for 10 s",
    )
    assert world.condition("Progressing")["reason"] == "ClaimMissing"


def test_status_when_everything_is_refused_in_many_words_then_it_can_be_written() -> None:
    world = Fleet(resource())
    world.settle()
    snapshot = world.snapshot()
    refusals = dict.fromkeys(snapshot.objects, "x" * 1000)
    status = decide(replace(snapshot, refusals=refusals), world.now).status
    assert status is not None
    longest = max(len(each["message"].encode()) for each in [status, *status["conditions"]])
    assert 7900 < longest <= 8000
