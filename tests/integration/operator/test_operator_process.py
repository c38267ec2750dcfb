"""The whole operator process against a real API server, with exactly the chart's rights."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hack.controlplane.apiserver import CRD_PATH, ApiServer
from hack.processes.fleet import Fleet, llm_deployment
from hack.processes.operator import OPERATOR_NAMESPACE, OperatorProcess, running_operator
from hack.processes.waiting import eventually

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases/llmfleet-operator"


@pytest.fixture
def fleet(api_server: ApiServer, namespace: str) -> Fleet:
    return Fleet(api_server, namespace)


@pytest.fixture
def operator(api_server: ApiServer, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    api_server.request("DELETE", LEASE)
    with running_operator(api_server, tmp_path, LLMFLEET_WATCH_NAMESPACES=namespace) as running:
        running.wait_leading()
        yield running


def settle(operator: OperatorProcess, fleet: Fleet) -> None:
    """Wait until the operator has made everything and a second has passed without a write."""
    eventually(lambda: fleet.children("Deployment"), "Deployments exist")
    operator.wait_quiet()


def test_children_when_a_resource_is_created_then_all_exist_and_belong_to_it(
    operator: OperatorProcess, fleet: Fleet
) -> None:
    created = fleet.apply(llm_deployment())
    settle(operator, fleet)
    names = {(kind, one["metadata"]["name"]) for kind in (
        "Service", "ServiceAccount", "Role", "RoleBinding", "PodDisruptionBudget", "ConfigMap",
    ) for one in fleet.children(kind)}  # fmt: skip
    assert {
        ("Service", "chat"),
        ("ServiceAccount", "chat-router"),
        ("Role", "chat-router"),
        ("RoleBinding", "chat-router"),
        ("PodDisruptionBudget", "chat-router"),
        ("PodDisruptionBudget", "chat-engine"),
        ("ConfigMap", "chat-llmfleet-memory"),
    } <= names
    status = (fleet.resource() or {})["status"]
    revision = status["specRevision"]
    engines = fleet.child("Deployment", f"chat-rev-{revision}")
    kept = fleet.child("ControllerRevision", f"chat-rev-{revision}")
    assert engines is not None
    assert kept is not None
    assert engines["spec"]["replicas"] == 1
    for owned in (engines, kept, fleet.child("Service", "chat")):
        assert owned is not None
        assert [one["uid"] for one in owned["metadata"]["ownerReferences"]] == [
            created["metadata"]["uid"]
        ]
    memory = fleet.child("ConfigMap", "chat-llmfleet-memory")
    assert memory is not None
    assert "ownerReferences" not in memory["metadata"]
    secret = fleet.child("Secret", f"chat-token-{created['metadata']['uid'][:8]}")
    assert secret is not None
    assert status["tokenSecret"] == {
        "name": secret["metadata"]["name"],
        "uid": secret["metadata"]["uid"],
    }
    assert len(secret["data"]["token"]) >= 43


def test_writes_when_restarted_with_nothing_changed_then_there_are_none(
    operator: OperatorProcess, fleet: Fleet, tmp_path: Path
) -> None:
    fleet.apply(llm_deployment())
    settle(operator, fleet)
    assert operator.stop() == 0
    user = f"system:serviceaccount:{OPERATOR_NAMESPACE}:llmfleet"

    def audited() -> list[str]:
        return [
            f"{one['verb']} {one['requestURI']}"
            for one in fleet.server.audited_writes(user)
            if "leases" not in one["requestURI"]
        ]

    before = audited()
    with running_operator(
        fleet.server, tmp_path, LLMFLEET_WATCH_NAMESPACES=fleet.namespace
    ) as again:
        again.wait_leading()
        eventually(lambda: again.reconciles() >= 1, "it looked at the object")
        reconciled = again.reconciles()
        # Something happens that changes no decision, so that it certainly looks once more.
        fleet.patch(fleet.resource_path("chat"), {"metadata": {"labels": {"team": "a"}}})
        eventually(lambda: again.reconciles() > reconciled, "it looked again")
        assert again.writes() == {}
        assert again.stop() == 0
    assert audited()[len(before) :] == []


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"spec": {"paused": True}}, id="a field the intent lacks"),
        pytest.param({"spec": {"replicas": 5}}, id="a field of the intent"),
        pytest.param(
            {"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}}, id="a map"
        ),
        pytest.param(
            {"spec": {"template": {"spec": {"containers": [
                {"name": "envoy", "env": [{"name": "DEBUG", "value": "1"}]}]}}}},
            id="an environment variable",
        ),
        pytest.param(
            {"spec": {"template": {"spec": {"containers": [
                {"name": "sidecar", "image": "busybox"}]}}}},
            id="a sidecar",
        ),
        pytest.param(
            {"spec": {"template": {"spec": {"initContainers": [
                {"name": "first", "image": "busybox"}]}}}},
            id="an init container",
        ),
    ],
)  # fmt: skip
def test_child_when_edited_by_hand_then_put_back_and_told(
    operator: OperatorProcess, fleet: Fleet, edit: dict[str, object]
) -> None:
    fleet.apply(llm_deployment())
    settle(operator, fleet)
    path = fleet.path("Deployment", "chat-router")
    spec = (fleet.get(path) or {})["spec"]
    edited = fleet.patch(path, edit, kind="strategic")
    assert edited["spec"] != spec
    eventually(lambda: (fleet.get(path) or {})["spec"] == spec, "the edit is gone")
    eventually(lambda: fleet.events("ChildEdited"), "an Event tells so")
    settle(operator, fleet)


def test_name_when_taken_by_somebody_else_then_untouched_and_reported_until_free(
    operator: OperatorProcess, fleet: Fleet
) -> None:
    path = fleet.path("Service", "chat")
    theirs = fleet.server.create(
        fleet.path("Service"),
        {"metadata": {"name": "chat"}, "spec": {"ports": [{"port": 5432}]}},
    )
    fleet.apply(llm_deployment())
    taken = eventually(lambda: fleet.condition("NameTaken"), "NameTaken is reported")
    assert taken["status"] == "True"
    assert "chat" in taken["message"]
    settle(operator, fleet)
    assert fleet.get(path) == theirs
    fleet.server.request("DELETE", path)
    mine = eventually(lambda: fleet.get(path), "the Service is made", 45)
    assert mine["spec"]["ports"][0]["port"] == 80


def test_delete_when_no_operator_runs_then_nothing_is_left_waiting(
    operator: OperatorProcess, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    settle(operator, fleet)
    assert operator.stop() == 0
    for kind in ("Deployment", "Service", "ControllerRevision", "Secret"):
        listed = fleet.get(fleet.path(kind)) or {}
        for one in listed["items"]:
            assert "finalizers" not in one["metadata"]
    fleet.server.kubectl("delete", "llmdep", "chat", "-n", fleet.namespace, "--timeout=10s")
    assert fleet.resource() is None


def test_operator_when_a_second_one_runs_then_one_leads_and_the_other_takes_over(
    operator: OperatorProcess, fleet: Fleet, tmp_path: Path
) -> None:
    with running_operator(
        fleet.server, tmp_path, LLMFLEET_WATCH_NAMESPACES=fleet.namespace
    ) as second:
        eventually(lambda: second.answer("/readyz").status_code == 200, "the standby serves probes")
        assert second.metric("llmfleet_leader") == 0
        halted = time.monotonic()
        operator.process.send_signal(signal.SIGSTOP)  # to the others it looks killed
        second.wait_leading(25)
        assert time.monotonic() - halted >= 8, "a lease that may still be held was taken"
        operator.process.send_signal(signal.SIGCONT)
        assert operator.process.wait(5) == 1, "a leader that lost its lease must end"
        fleet.apply(llm_deployment())
        eventually(lambda: fleet.children("Deployment"), "the new leader works")
        with running_operator(
            fleet.server, tmp_path, LLMFLEET_WATCH_NAMESPACES=fleet.namespace
        ) as third:
            eventually(lambda: third.answer("/readyz").status_code == 200, "it serves probes")
            with running_operator(
                fleet.server, tmp_path, LLMFLEET_WATCH_NAMESPACES=fleet.namespace
            ) as fourth:
                eventually(lambda: fourth.answer("/readyz").status_code == 200, "it serves probes")
                assert fourth.stop() == 0, "a standby ends at once and well"
            released = time.monotonic()
            assert second.stop() == 0
            third.wait_leading()
            assert time.monotonic() - released < 8, "a released lease was waited for"


def test_operator_when_the_crd_is_older_then_not_ready_and_no_rollout_but_status(
    bare_api_server: ApiServer, operator: OperatorProcess, fleet: Fleet
) -> None:
    crd = yaml.safe_load(CRD_PATH.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    del schema["status"]["properties"]["message"]
    crd["metadata"]["annotations"]["llmfleet.dev/schema"] = "0"
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/llmdeployments.llmfleet.dev"
    operator.stop()
    try:
        answer = bare_api_server.request(
            "PATCH", f"{path}?fieldManager=tests&force=true", crd, "application/apply-patch+yaml"
        )
        assert answer.status_code == 200, answer.text
        directory = operator.log.parent
        with running_operator(
            bare_api_server, directory, LLMFLEET_WATCH_NAMESPACES=fleet.namespace
        ) as old:
            old.wait_leading()
            assert old.metric("llmfleet_crd_outdated") == 1
            refused = old.answer("/readyz")
            assert refused.status_code == 503
            assert "status.message" in refused.text
            fleet.apply(llm_deployment())
            eventually(
                lambda: ((fleet.resource() or {}).get("status") or {}).get("phase"), "status"
            )
            assert not fleet.children("ControllerRevision")
            bare_api_server.install_crd()
            eventually(lambda: fleet.children("ControllerRevision"), "rollout after upgrade", 60)
            assert old.answer("/readyz").status_code == 200
    finally:
        bare_api_server.install_crd()


def test_status_when_written_by_a_newer_operator_then_nothing_is_written(
    operator: OperatorProcess, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    settle(operator, fleet)
    path = fleet.resource_path("chat")
    newer = {"status": {"schema": 99, "observedGeneration": 7}}
    stored = fleet.patch(f"{path}/status", newer, "newer")
    eventually(lambda: operator.metric("llmfleet_newer_status_schema") == 1, "it is noticed")
    eventually(lambda: fleet.events("NewerStatusSchema"), "an Event says so")
    router = fleet.path("Deployment", "chat-router")
    fleet.patch(router, {"spec": {"replicas": 4}})
    marker = secrets.token_hex(4)
    reconciled = operator.reconciles()
    fleet.patch(path, {"metadata": {"labels": {"touched": marker}}})
    eventually(lambda: operator.reconciles() > reconciled, "it looked again")
    assert (fleet.resource() or {})["status"] == stored["status"]
    assert (fleet.get(router) or {})["spec"]["replicas"] == 4
