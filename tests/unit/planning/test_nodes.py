"""Nodes that are lost, refuse pods or end them: told with their names, and no revision's fault."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from llmfleet.planning.facts.arms import Arm
from llmfleet.planning.facts.read import read_facts
from llmfleet.planning.rollout.diagnosis import diagnose_arm
from llmfleet.planning.rollout.ends import Diagnosis
from llmfleet.planning.snapshot import ObservedPod, RequestCounts, Termination
from tests.unit.planning.builders import counted
from tests.unit.planning.canaries import STEPS, at_share, canary, rejected, split, started
from tests.unit.planning.fleet import START, Fleet, engine_pod, hash_of, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import ended, said
from tests.unit.planning.test_rollout import turn

STUCK_FOR = 31
REJECTED = "Pod was rejected: "


def engine_of(world: Fleet, revision: str) -> str:
    return next(name for name, pod in world.pods.items() if pod.revision == revision)


def stay(world: Fleet, name: str, **facts: Any) -> None:
    """A pod is in this state from now on."""
    world.broken |= {str(world.pods[name].revision)}
    world.pods[name] = replace(world.pods[name], ready=False, node="n1", **facts)


def last_warning(world: Fleet) -> str:
    told = [event for plan in world.plans for event in plan.events if event.type == "Warning"]
    return told[-1].message


def test_canary_when_its_node_is_lost_then_it_is_aborted_with_its_name_and_tried_again() -> None:
    world, old, new = started(canary(STEPS, progressDeadline="2m"))
    at_share(world, new, 25)
    world.wait(3600)
    world.lose_node(engine_of(world, new), "gpu-7")
    turn(world)
    assert rejected(world) == {}
    assert world.condition("Progressing")["reason"] != "WaitingForRetry"

    world.wait(120)
    world.reconcile()
    assert split(world) == {old: 100}
    assert rejected(world) == {}
    assert world.status()["rollout"]["aborted"] == "NodeLost"
    assert "gpu-7 is not ready" in last_warning(world)
    turn(world, 5)
    assert world.condition("Progressing")["reason"] == "WaitingForRetry"


def unreached(total: int, failed: int, unreached: int) -> RequestCounts:
    return replace(counted(total, failed), unreached=unreached)


def test_canary_when_most_of_what_fails_reached_no_pod_then_it_is_aborted_and_tried_again() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    world.requests = {old: counted(900), new: unreached(300, 250, 240)}
    world.reconcile()
    assert split(world) == {old: 100}
    assert rejected(world) == {}
    assert world.status()["rollout"]["aborted"] == "PodsUnreachable"
    assert "no pod of it could be connected to for 240 of them" in last_warning(world)
    world.requests = {}
    turn(world, 5)
    assert world.condition("Progressing")["reason"] == "WaitingForRetry"


@pytest.mark.parametrize(("failures", "ends"), [(125, 0), (240, 1)], ids=["its own", "it ended"])
def test_canary_when_pods_that_cannot_be_reached_are_its_own_doing_then_it_is_rejected(
    failures: int, ends: int
) -> None:
    world, old, new = started()
    at_share(world, new, 25)
    name = engine_of(world, new)
    world.pods[name] = replace(world.pods[name], restarts=ends)
    world.requests = {old: counted(900), new: unreached(300, 250, failures)}
    world.reconcile()
    assert rejected(world) == {new: "ErrorRateRegression"}


def node_fault(reason: str, message: str, code: int) -> Termination:
    return Termination(exit_code=code, reason=reason, message=message, finished_at=START)


DRIVER = "nvidia-container-cli: initialization error: driver/library version mismatch"
NODE_FAULTS = {
    "the driver does not fit": (
        {"last_termination": node_fault("StartError", DRIVER, 128), "restarts": 3},
        "StartError",
        DRIVER,
    ),
    "an older runtime's word": (
        {"last_termination": node_fault("ContainerCannotRun", DRIVER, 127), "restarts": 3},
        "StartError",
        DRIVER,
    ),
    "it cannot be run": (
        {"waiting_reason": "RunContainerError", "waiting_message": DRIVER},
        "StartError",
        DRIVER,
    ),
    "it cannot be made": (
        {"waiting_reason": "CreateContainerError", "waiting_message": "no such device"},
        "StartError",
        "no such device",
    ),
    "the node restarted twice": (
        {"last_termination": node_fault("Unknown", "", 255), "restarts": 2},
        "NodeLost",
        "restarts",
    ),
    "the kubelet lost it": (
        {"last_termination": node_fault("ContainerStatusUnknown", "", 137), "restarts": 2},
        "NodeLost",
        "restarts",
    ),
}


@pytest.mark.parametrize(("state", "reason", "words"), NODE_FAULTS.values(), ids=NODE_FAULTS)
def test_canary_when_its_node_cannot_run_it_then_it_is_aborted_with_the_nodes_name(
    state: dict[str, Any], reason: str, words: str
) -> None:
    world, old, new = started(canary(STEPS))
    at_share(world, new, 25)
    stay(world, engine_of(world, new), running_since=None, **state)
    world.reconcile()
    world.wait(121)
    world.reconcile()
    assert rejected(world) == {}
    assert split(world) == {old: 100}
    assert world.status()["rollout"]["aborted"] == reason
    assert "n1" in last_warning(world)
    assert words in last_warning(world)


def test_canary_when_its_node_restarted_and_its_engine_runs_again_then_it_goes_on() -> None:
    world, old, new = started(canary(STEPS))
    at_share(world, new, 25)
    name = engine_of(world, new)
    ends = {"last_termination": node_fault("Unknown", "", 255), "restarts": 2}
    stay(world, name, **ends, running_since=world.now, unready_since=world.now)
    world.wait(300)
    world.reconcile()
    assert split(world) == {old: 100}, "nobody is sent to a pod that is not ready"
    assert world.status()["rollout"]["revision"] == new
    assert "aborted" not in world.status()["rollout"]

    world.pods[name] = replace(world.pods[name], ready=True)
    world.reconcile()
    assert world.status()["rollout"]["endedBefore"] == {name: 2}

    crash = ended("boom")["last_termination"]
    stay(world, name, last_termination=crash, restarts=3, running_since=world.now)
    world.reconcile()
    assert rejected(world) == {}, "its engine has ended once"
    stay(world, name, restarts=4)
    world.reconcile()
    assert rejected(world) == {new: "CrashLoop"}


def test_rollout_when_a_pod_never_ends_on_a_lost_node_then_it_holds_nothing_up() -> None:
    policy = {"strategy": "RollingUpdate", "scaleDownDelay": "10s"}
    world = Fleet(resource(replicas=3, rollout=policy))
    world.settle()
    old = hash_of(world.raw)
    name = engine_of(world, old)
    world.lose_node(name)
    world.end(name)  # evicted; its kubelet never confirms it
    world.kubelet()
    world.edit(model=model("two"))
    new = hash_of(world.raw)
    turn(world)
    assert world.replicas()[new] == 0
    plan = world.reconcile()
    assert plan.requeue_after is not None
    assert plan.requeue_after <= STUCK_FOR + 1

    world.wait(STUCK_FOR)
    world.settle()
    assert world.status()["servedRevision"] == new
    assert world.replicas() == {new: 3}
    assert world.condition("Ready")["status"] == "True"
    assert world.pods[name].deleting


def test_pod_when_it_never_ends_on_a_node_that_reports_then_it_holds_its_accelerator() -> None:
    world = Fleet(resource(replicas=3, rollout={"strategy": "RollingUpdate"}))
    world.settle()
    name = engine_of(world, hash_of(world.raw))
    stuck = replace(world.pods[name], deleting=True, ready=False, ends_at=world.now)
    for _ in range(2):  # its ReplicaSet makes another one
        world.pods[name] = stuck  # a process that no signal ends
        world.kubelet()
    world.pods[name] = stuck
    world.edit(model=model("two"))
    for _ in range(10):
        world.reconcile()
        world.kubelet()
        world.pods[name] = stuck
        world.wait(60)
    assert world.replicas()[hash_of(world.raw)] == 0


def failed(reason: str, message: str = "", *, node: str = "n1", seconds: int = 0) -> ObservedPod:
    return engine_pod(
        f"failed-{node}-{seconds}",
        phase="Failed",
        reason=reason,
        message=message,
        node=node,
        created_at=START + timedelta(seconds=seconds),
    )


def diagnose(
    *pods: ObservedPod, live: tuple[ObservedPod, ...] = (), after: int = 60
) -> Diagnosis | None:
    arm = Arm(wanted=1, pods=live, failed=pods)
    return diagnose_arm(arm, START + timedelta(seconds=after), 600, {})


KUBELETS_WORDS = {
    "Evicted": ("The node was low on resource: ephemeral-storage.", "Evicted"),
    "UnexpectedAdmissionError": (
        f"{REJECTED}Allocate failed due to no healthy devices present, which is unexpected",
        "NodeRefused",
    ),
    "OutOfcpu": (f"{REJECTED}Node didn't have enough resource: cpu", "NodeRefused"),
    "OutOfnvidia.com/gpu": ("", "NodeRefused"),
    "AnotherPredicate": (f"{REJECTED}for a reason that is new", "NodeRefused"),
    "NodeShutdown": (f"{REJECTED}Pod was rejected as the node is shutting down.", "NodeShutdown"),
    "Terminated": ("Pod was terminated in response to imminent node shutdown.", "NodeShutdown"),
    "Preempting": ("Preempted in order to admit critical pod", "Preempted"),
    "SomethingNew": ("in a kubelet of next year", "PodFailed"),
}


@pytest.mark.parametrize("word", KUBELETS_WORDS)
def test_pod_when_its_node_ended_or_refused_it_then_it_is_told_with_word_node_and_sentence(
    word: str,
) -> None:
    sentence, reason = KUBELETS_WORDS[word]
    found = diagnose(failed(word, sentence, node="gpu-3"))
    assert found is not None
    assert (found.reason, found.fatal) == (reason, False)
    assert "gpu-3" in found.message
    assert word in found.message
    assert sentence in found.message


def test_failed_pods_when_there_are_many_then_the_sentence_stays_the_same() -> None:
    first = diagnose(failed("UnexpectedAdmissionError", "no devices", node="a", seconds=1))
    pods = [
        failed("UnexpectedAdmissionError", "no devices", node=node, seconds=second)
        for second in range(1, 50)
        for node in ("b", "a")
    ]
    later = diagnose(*pods)
    assert first is not None
    assert later is not None
    assert later.message == first.message


def test_failed_pods_when_something_else_explains_it_or_they_are_old_then_they_are_not_told() -> (
    None
):
    pod = failed("Evicted")
    image = engine_pod("b", waiting_reason="ImagePullBackOff", waiting_message="not found")
    other = diagnose(pod, live=(image,))
    assert other is not None
    assert other.reason == "ImagePullFailed"
    assert diagnose(pod, live=(engine_pod("b", ready=True),)) is None
    assert diagnose(pod, after=599) is not None
    assert diagnose(pod, after=600) is None


def test_canary_when_nodes_refuse_its_pods_then_it_is_told_and_not_rejected() -> None:
    world, old, new = started(canary(STEPS), broken=True)
    world.kubelet()
    name = engine_of(world, new)
    reason = {"reason": "UnexpectedAdmissionError", "message": "no devices"}
    for number in range(5):
        world.pods[f"{name}-{number}"] = replace(
            world.pods[name], name=f"{name}-{number}", phase="Failed", node="gpu-9", **reason
        )
    turn(world, 3)
    assert (split(world), rejected(world)) == ({old: 100}, {})
    found = world.condition("Progressing")
    assert (found["status"], found["reason"]) == ("True", "NodeRefused")
    assert "gpu-9" in found["message"]
    arm = read_facts(world.snapshot(), 2, world.now).arm(new)
    assert (arm.present, len(arm.failed)) == (1, 5), "what has failed holds nothing"


def test_pod_when_its_node_does_not_begin_it_for_two_minutes_then_it_is_told_and_waited_for() -> (
    None
):
    world, old, new = started(canary(STEPS), broken=True)
    world.kubelet()
    stay(world, engine_of(world, new), sandbox_missing_since=world.now)
    world.wait(119)
    plan = world.reconcile()
    assert world.condition("Progressing")["reason"] == "WaitingForReady"
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 2
    world.wait(1)
    world.reconcile()
    found = world.condition("Progressing")
    assert (found["status"], found["reason"]) == ("True", "SandboxMissing")
    assert "n1" in found["message"]
    assert (split(world), rejected(world)) == ({old: 100}, {})


def test_engine_when_it_ends_for_good_on_a_node_then_it_is_judged_for_it() -> None:
    world, _, new = started(canary(STEPS))
    at_share(world, new, 25)
    stay(world, engine_of(world, new), **said("BadConfig", retriable=False))
    world.reconcile()
    assert rejected(world) == {new: "BadConfig"}
