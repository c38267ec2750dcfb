"""What is read of pods and ReplicaSets as the API server stores them."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from llmfleet.cluster.pods import LONGEST_SENTENCE, observe_pod, observe_replica_set
from llmfleet.planning.snapshot import Controller

JSON = dict[str, Any]
SINCE = "2026-01-02T03:04:06Z"
SINCE_TIME = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)
OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "chat-rev-5d41-6b", "uid": "rs"}


def pod(status: JSON) -> JSON:
    return {
        "metadata": {
            "name": "p",
            "namespace": "a",
            "uid": "u",
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"llmfleet.dev/component": "engine", "llmfleet.dev/revision": "5d41"},
        },
        "spec": {"nodeName": "n1"},
        "status": status,
    }


def test_pod_when_its_engine_crashed_then_its_termination_is_read() -> None:
    ended = {
        "exitCode": 3,
        "reason": "Error",
        "message": "{}",
        "finishedAt": "2026-01-02T03:05:05Z",
    }
    engine = {
        "name": "engine",
        "restartCount": 2,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": ended},
    }
    found = observe_pod(pod({"containerStatuses": [{"name": "sidecar"}, engine]}))
    assert (found.waiting_reason, found.restarts) == ("CrashLoopBackOff", 2)
    assert found.last_termination is not None
    assert found.last_termination.exit_code == 3
    assert found.last_termination.finished_at == datetime(2026, 1, 2, 3, 5, 5, tzinfo=UTC)
    assert (found.component, found.revision) == ("engine", "5d41")
    assert not found.ready


ENDED = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": SINCE}}
RUNNING = {"running": {"startedAt": SINCE}}
WAITING = {"waiting": {"reason": "CrashLoopBackOff"}}
CREATING = {"waiting": {"reason": "ContainerCreating"}}
NO_IMAGE = {"waiting": {"reason": "ErrImagePull", "message": "no such tag"}}


@pytest.mark.parametrize(
    ("agent", "envoy", "main"),
    [
        ({"state": RUNNING, "ready": True}, {"state": RUNNING, "ready": True}, "envoy"),
        ({"state": RUNNING}, {"state": WAITING, "lastState": ENDED}, "envoy"),
        ({"state": WAITING, "lastState": ENDED}, {"state": RUNNING, "ready": True}, "agent"),
        ({"state": ENDED}, {"state": RUNNING, "ready": True}, "agent"),
        ({"state": RUNNING, "lastState": ENDED}, {"state": RUNNING, "ready": True}, "agent"),
        (
            {"state": RUNNING, "lastState": ENDED},
            {"state": RUNNING, "lastState": ENDED, "ready": True},
            "agent",
        ),
        ({"state": NO_IMAGE}, {"state": CREATING}, "agent"),
        ({"state": CREATING}, {"state": NO_IMAGE}, "envoy"),
        ({"state": ENDED}, {"state": WAITING, "lastState": ENDED}, "envoy"),
    ],
)
def test_router_pod_when_one_of_its_containers_fails_then_it_is_that_one_that_is_told_of(
    agent: JSON, envoy: JSON, main: str
) -> None:
    body = pod({"containerStatuses": [{"name": "agent", **agent}, {"name": "envoy", **envoy}]})
    body["metadata"]["labels"] = {"llmfleet.dev/component": "router"}
    assert observe_pod(body).container == main


def test_router_pod_when_it_is_of_an_earlier_release_then_its_one_container_is_read() -> None:
    statuses = [{"name": "mesh", "state": RUNNING}, {"name": "router", "state": WAITING}]
    body = pod({"containerStatuses": statuses})
    body["metadata"]["labels"] = {"llmfleet.dev/component": "router"}
    found = observe_pod(body)
    assert (found.waiting_reason, found.container) == ("CrashLoopBackOff", None)


def test_pod_when_the_scheduler_found_no_room_then_its_sentence_is_kept() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes",
        "lastTransitionTime": "2026-01-02T03:04:06Z",
    }
    found = observe_pod(pod({"conditions": [condition]}))
    assert found.unschedulable == "0/1 nodes"
    assert found.unschedulable_since == datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)
    condition["reason"] = "SchedulingGated"
    assert observe_pod(pod({"conditions": [condition]})).unschedulable is None
    condition |= {"reason": "SchedulerError", "message": "binding volumes: timed out"}
    assert observe_pod(pod({"conditions": [condition]})).unschedulable == condition["message"]


def test_pod_when_a_replica_set_controls_it_then_that_is_its_controller() -> None:
    body = pod({})
    assert observe_pod(body).controller is None
    body["metadata"]["ownerReferences"] = [{**OWNER, "uid": "other"}]
    assert observe_pod(body).controller is None, "an owner that does not control it"
    body["metadata"]["ownerReferences"].append({**OWNER, "controller": True})
    expected = Controller(kind="ReplicaSet", name="chat-rev-5d41-6b", uid="rs")
    assert observe_pod(body).controller == expected


def test_pod_when_it_is_gated_deleted_or_ended_then_gates_times_and_words_are_read() -> None:
    body = pod({"phase": "Failed", "reason": "Evicted", "message": "low on memory"})
    body["metadata"]["deletionTimestamp"] = SINCE
    body["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}, {"name": "quota"}]
    found = observe_pod(body)
    assert (found.phase, found.reason, found.message) == ("Failed", "Evicted", "low on memory")
    assert (found.deleting, found.ends_at) == (True, SINCE_TIME)
    assert found.gates == ("kueue.x-k8s.io/admission", "quota")
    assert found.node == "n1"


def condition(kind: str, status: str, reason: str | None = None) -> JSON:
    found = {"type": kind, "status": status, "lastTransitionTime": SINCE}
    return found if reason is None else {**found, "reason": reason}


NODES = {
    "a pod that is ready": (
        [condition("Ready", "True"), condition("ContainersReady", "True")],
        False,
    ),
    "one that loads its model": (
        [
            condition("Ready", "False", "ContainersNotReady"),
            condition("ContainersReady", "False", "ContainersNotReady"),
        ],
        False,
    ),
    "one with a readiness gate": (
        [
            condition("Ready", "False", "ReadinessGatesNotReady"),
            condition("ContainersReady", "True"),
        ],
        False,
    ),
    "the node controller took its readiness away": (
        [condition("Ready", "False"), condition("ContainersReady", "True")],
        True,
    ),
    "the taint manager evicts it": (
        [
            condition("Ready", "False", "ContainersNotReady"),
            condition("DisruptionTarget", "True", "DeletionByTaintManager"),
        ],
        True,
    ),
    "a person drains its node": (
        [
            condition("Ready", "True"),
            condition("DisruptionTarget", "True", "EvictionByEvictionAPI"),
        ],
        False,
    ),
}


@pytest.mark.parametrize(("conditions", "lost"), NODES.values(), ids=NODES)
def test_pod_when_kubernetes_takes_its_node_for_lost_then_its_conditions_say_so(
    conditions: list[JSON], lost: bool
) -> None:
    assert observe_pod(pod({"conditions": conditions})).node_lost == lost


def test_pod_when_its_node_has_not_made_its_sandbox_then_since_when() -> None:
    body = pod({"conditions": [condition("PodReadyToStartContainers", "False")]})
    assert observe_pod(body).sandbox_missing_since == SINCE_TIME
    del body["spec"]["nodeName"]
    assert observe_pod(body).sandbox_missing_since is None
    started = pod({"conditions": [condition("PodReadyToStartContainers", "True")]})
    assert observe_pod(started).sandbox_missing_since is None


@pytest.mark.parametrize(
    "sentence", ['pods "x" is forbidden: exceeded quota: gpus', 'denied by webhook "policy"', ""]
)
def test_replica_set_when_the_api_server_refuses_it_a_pod_then_deployment_and_sentence(
    sentence: str,
) -> None:
    failure = {**condition("ReplicaFailure", "True", "FailedCreate"), "message": sentence}
    body = pod({"conditions": [failure]})
    owner = {**OWNER, "kind": "Deployment", "name": "chat-rev-5d41", "controller": True}
    body["metadata"]["ownerReferences"] = [owner]
    found = observe_replica_set(body)
    assert found.controller == Controller(kind="Deployment", name="chat-rev-5d41", uid="rs")
    assert found.refused == (sentence or "the API server does not say why")

    deleting = copy.deepcopy(body)
    deleting["status"]["conditions"][0]["reason"] = "FailedDelete"
    assert observe_replica_set(deleting).refused is None
    assert observe_replica_set(pod({})).refused is None


def test_sentence_when_a_scheduler_or_a_webhook_writes_anything_then_it_is_clean_and_bounded() -> (
    None
):
    words = f"\x1b[31m0/1 nodes\r{'x' * 40_000} the end"
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
    told = (
        observe_pod(pod({"conditions": [{**scheduled, "message": words}]})).unschedulable,
        observe_replica_set(pod({"conditions": [{**failure, "message": words}]})).refused,
    )
    for each in told:
        assert each is not None
        assert each.startswith("0/1 nodes xx")
        assert each.endswith("xx the end")
        assert len(each.encode()) <= LONGEST_SENTENCE


RUNS: JSON = {"running": {"startedAt": SINCE}}
WAITS: JSON = {"waiting": {"reason": "PodInitializing"}}
PULLS: JSON = {"waiting": {"reason": "ImagePullBackOff", "message": "no such\nimage"}}
CREATES: JSON = {"waiting": {"reason": "ContainerCreating"}}
NO_IMAGE = "waits (ImagePullBackOff): no such image"
BACKS_OFF: JSON = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}
DONE: JSON = {"terminated": {"exitCode": 0, "reason": "Completed"}}
CRASHED: JSON = {"terminated": {"exitCode": 1, "reason": "Error", "message": "no rights"}}


def container(name: str, state: JSON, *, ready: bool = False, last: JSON | None = None) -> JSON:
    return {"name": name, "state": state, "ready": ready, "lastState": last or {}}


BESIDE: dict[str, tuple[list[JSON], list[JSON], tuple[str, bool] | None]] = {
    "nothing": ([], [], None),
    "everything is being made": (
        [container("init", WAITS)], [container("mesh", CREATES)],
        None,
    ),
    "an init container that runs": ([container("init", RUNS)], [], ("init is not ready", False)),
    "one that is done": ([container("init", DONE, ready=True)], [], None),
    "one that is done and pruned": ([container("init", DONE)], [], None),
    "one that crashed": (
        [container("init", CRASHED)], [], ("init ended with exit code 1: no rights", True),
    ),
    "one that backs off": (
        [container("init", BACKS_OFF, last=CRASHED)],
        [],
        ("init ended with exit code 1: no rights", True),
    ),
    "one that runs again": (
        [container("init", RUNS, last=CRASHED)],
        [],
        ("init ended with exit code 1: no rights", True),
    ),
    "an image": ([container("init", PULLS)], [], (f"init {NO_IMAGE}", True)),
    "a sidecar that ended well": (
        [], [container("mesh", DONE)], ("mesh ended with exit code 0: Completed", True),
    ),
    "several, the failed first": (
        [container("first", RUNS)],
        [container("second", PULLS), container("third", WAITS)],
        (f"second {NO_IMAGE}", True),
    ),
    "sidecars that are ready": (
        [container("restarts", RUNS, ready=True)], [container("mesh", RUNS, ready=True)], None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("inits", "others", "expected"), BESIDE.values(), ids=BESIDE)
def test_pod_when_it_has_other_containers_then_what_keeps_it_from_being_ready_is_read(
    inits: list[JSON], others: list[JSON], expected: tuple[str, bool] | None
) -> None:
    status: JSON = {
        "containerStatuses": [*others, container("engine", WAITS)],
        "initContainerStatuses": inits,
        "ephemeralContainerStatuses": [container("debugger", CRASHED)],
    }
    found = observe_pod(pod(status))
    said = found.hindrance and (found.hindrance.text, found.hindrance.failed)
    assert said == (expected and (f"its container {expected[0]}", expected[1]))
    assert (found.running_since, found.waiting_reason) == (None, "PodInitializing")


def test_pod_when_its_engine_runs_and_a_sidecar_does_not_come_then_that_is_read() -> None:
    mesh = container("mesh", CREATES)
    status: JSON = {"containerStatuses": [container("engine", RUNS, ready=True), mesh]}
    found = observe_pod(pod(status)).hindrance
    assert found is not None
    assert (found.text, found.failed) == ("its container mesh is not ready", False)
    status["conditions"] = [{"type": "Ready", "status": "True"}]
    assert observe_pod(pod(status)).hindrance is None


def test_pod_when_a_readiness_gate_is_not_set_then_the_kubelets_sentence_is_kept() -> None:
    said = 'the status of pod readiness gate "x.example/lb" is not "True", but False'
    condition: JSON = {"type": "Ready", "status": "False", "message": said}
    condition["reason"] = "ReadinessGatesNotReady"
    engine = container("engine", RUNS, ready=True)
    found = observe_pod(pod({"containerStatuses": [engine], "conditions": [condition]})).hindrance
    assert found is not None
    assert (found.text, found.failed) == (said, False)


def test_replica_set_when_a_webhook_refuses_in_very_many_words_then_they_are_cut() -> None:
    failing = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
    body = {
        "metadata": {"uid": "rs", "name": "x"},
        "status": {"conditions": [{**failing, "message": "no\x1b[2J " * 100_000}]},
    }
    refused = observe_replica_set(body).refused
    assert refused is not None
    assert refused.startswith("no no no")
    assert len(refused) <= 1000
