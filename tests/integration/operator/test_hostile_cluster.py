"""A cluster that turns against the operator: forged status, taken names, lost rights.

Each is a condition (or, where none can be written, a log line) and a bounded number of writes.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hack.controlplane.apiserver import ApiServer
from hack.processes.fleet import Fleet, llm_deployment
from hack.processes.operator import OperatorProcess, operator_token, running_operator
from hack.processes.waiting import eventually

JSON = dict[str, Any]
LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/llmfleet-operator"
ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/llmfleet-test"
WATCHED_SECONDS = 4.0
MOST_WRITES = 30
"""In that time; a loop without backoff makes hundreds."""


@pytest.fixture
def fleet(api_server: ApiServer, namespace: str) -> Fleet:
    return Fleet(api_server, namespace)


@pytest.fixture
def rights(api_server: ApiServer) -> Iterator[None]:
    """The operator's rights are whole again afterwards."""
    yield
    operator_token(api_server)


@contextmanager
def running_in(server: ApiServer, namespace: str, folder: Path) -> Iterator[OperatorProcess]:
    """An operator with all its rights and a free Lease, that watches one namespace only."""
    operator_token(server)
    server.request("DELETE", LEASE)
    with running_operator(server, folder, LLMFLEET_WATCH_NAMESPACES=namespace) as running:
        yield running


@pytest.fixture
def operator(api_server: ApiServer, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    with running_in(api_server, namespace, tmp_path) as running:
        running.wait_leading(120)
        yield running


def revoke(server: ApiServer, resource: str, verb: str) -> None:
    """Take one verb on one resource from the operator, as an administrator would."""
    role = server.request("GET", ROLE).json()
    rules: list[JSON] = []
    for rule in role["rules"]:
        if resource not in rule["resources"] or verb not in rule["verbs"]:
            rules.append(rule)
            continue
        others = [one for one in rule["resources"] if one != resource]
        if others:
            rules.append({**rule, "resources": others})
        verbs = [one for one in rule["verbs"] if one != verb]
        if verbs:
            rules.append({**rule, "resources": [resource], "verbs": verbs})
    assert rules != role["rules"], f"nobody holds {verb} on {resource}"
    answer = server.request("PUT", ROLE, {**role, "rules": rules})
    assert answer.status_code == 200, answer.text


def served(operator: OperatorProcess, fleet: Fleet) -> None:
    """Create the resource and wait until everything has been made of it."""
    fleet.apply(llm_deployment())
    eventually(lambda: fleet.children("Deployment"), "Deployments exist")
    operator.wait_quiet()


def assert_no_loop(operator: OperatorProcess) -> None:
    before = sum(operator.writes().values())
    time.sleep(WATCHED_SECONDS)  # what is awaited is that nothing happens
    assert sum(operator.writes().values()) - before <= MOST_WRITES


def refusal(fleet: Fleet, words: str) -> JSON | None:
    """The Progressing condition, once it tells of a refused child in these words."""
    found = fleet.condition("Progressing")
    if found and found["reason"] == "ChildRefused" and words in found["message"]:
        return found
    return None


@pytest.mark.parametrize(
    ("resource", "verb", "edit"),
    [
        pytest.param("deployments", "patch", {"router": {"replicas": 3}}, id="patch-deployments"),
        pytest.param("deployments", "create", {"engine": {"maxNumSeqs": 9}}, id="make-deployments"),
        pytest.param(
            "controllerrevisions", "create", {"engine": {"maxNumSeqs": 9}}, id="make-revisions"
        ),
    ],
)
def test_right_when_revoked_while_running_then_a_condition_names_it_and_it_recovers(
    operator: OperatorProcess,
    fleet: Fleet,
    rights: None,
    resource: str,
    verb: str,
    edit: JSON,
) -> None:
    served(operator, fleet)
    revoke(fleet.server, resource, verb)
    fleet.patch(fleet.resource_path("chat"), {"spec": edit})
    words = f'cannot {verb} resource "{resource}"'
    eventually(lambda: refusal(fleet, words), f"a condition says {words}")
    stalled = fleet.condition("Stalled")
    assert stalled is not None
    assert words in stalled["message"]
    assert_no_loop(operator)
    operator_token(fleet.server)
    eventually(lambda: not refusal(fleet, words), "it recovers", 60)


def test_secret_when_the_right_to_make_it_is_missing_then_a_condition_says_so_and_it_recovers(
    operator: OperatorProcess, fleet: Fleet, rights: None
) -> None:
    revoke(fleet.server, "secrets", "create")
    fleet.apply(llm_deployment())
    words = 'cannot create resource "secrets"'
    eventually(lambda: refusal(fleet, words), f"a condition says {words}")
    assert fleet.children("Secret") == []
    assert_no_loop(operator)
    operator_token(fleet.server)
    eventually(lambda: fleet.children("Secret"), "the Secret is made", 60)
    eventually(lambda: not refusal(fleet, words), "the condition goes", 60)


def assert_error_logged(operator: OperatorProcess, words: str) -> None:
    """What no condition can tell, the log and a metric do."""
    failed = 'llmfleet_reconcile_total{result="error"}'
    eventually(lambda: operator.metric(failed) >= 1, "an error is counted")
    assert words in operator.log.read_text().replace("\\", "")
    assert_no_loop(operator)


def test_status_when_it_may_not_be_written_then_the_log_and_a_metric_say_so_and_it_recovers(
    operator: OperatorProcess, fleet: Fleet, rights: None
) -> None:
    served(operator, fleet)
    revoke(fleet.server, "llmdeployments/status", "patch")
    generation = fleet.patch(fleet.resource_path("chat"), {"spec": {"replicas": 2}})["metadata"][
        "generation"
    ]
    assert_error_logged(operator, 'cannot patch resource "llmdeployments/status"')
    operator_token(fleet.server)

    def current() -> bool:
        status = (fleet.resource() or {}).get("status") or {}
        return bool(status.get("observedGeneration") == generation)

    eventually(current, "the status is current again", 60)


def test_resource_when_it_may_not_be_read_then_the_log_and_a_metric_say_so_and_it_recovers(
    operator: OperatorProcess, fleet: Fleet, rights: None
) -> None:
    revoke(fleet.server, "llmdeployments", "get")
    fleet.apply(llm_deployment())
    assert_error_logged(operator, 'cannot get resource "llmdeployments"')
    assert operator.writes() == {}
    operator_token(fleet.server)
    eventually(lambda: fleet.children("Deployment"), "it goes to work", 60)


@pytest.mark.parametrize("verb", ["list", "watch"])
@pytest.mark.parametrize("resource", ["pods", "llmdeployments"])
def test_right_to_see_when_revoked_then_readiness_names_it_and_it_recovers(
    api_server: ApiServer, fleet: Fleet, rights: None, tmp_path: Path, resource: str, verb: str
) -> None:
    with running_in(api_server, fleet.namespace, tmp_path) as operator:
        revoke(api_server, resource, verb)
        words = f'cannot {verb} resource "{resource}"'

        def said() -> bool:
            answer = operator.answer("/readyz")
            return answer.status_code == 503 and words in answer.text

        eventually(said, f"readiness says {words}", 60)
        operator.wait_leading(1)
        operator_token(api_server)
        eventually(lambda: operator.answer("/readyz").status_code == 200, "it recovers", 60)
        fleet.apply(llm_deployment())
        eventually(lambda: fleet.children("Deployment"), "it goes to work", 60)
        assert operator.stop() == 0


def test_pods_when_they_were_never_listed_then_nothing_is_written(
    api_server: ApiServer, fleet: Fleet, rights: None, tmp_path: Path
) -> None:
    with running_in(api_server, fleet.namespace, tmp_path) as operator:
        revoke(api_server, "pods", "list")
        fleet.apply(llm_deployment())
        eventually(lambda: "pods" in operator.answer("/readyz").text, "readiness says so")
        assert operator.writes() == {}  # what is unknown decides nothing


def test_deletion_when_refused_then_a_condition_says_so_and_it_is_made_up_for(
    operator: OperatorProcess, fleet: Fleet, rights: None
) -> None:
    served(operator, fleet)
    first = f"chat-rev-{(fleet.resource() or {})['status']['specRevision']}"
    revoke(fleet.server, "deployments", "delete")
    # Nothing of the first revision ever ran, so it gives way to the second at once.
    fleet.patch(fleet.resource_path("chat"), {"spec": {"engine": {"maxNumSeqs": 9}}})
    words = 'cannot delete resource "deployments"'
    said = eventually(lambda: refusal(fleet, words), f"a condition says {words}")
    assert said is not None
    assert f"Deployment {first} was refused: DELETE" in said["message"]
    assert fleet.child("Deployment", first) is not None
    assert_no_loop(operator)
    operator_token(fleet.server)
    eventually(lambda: fleet.child("Deployment", first) is None, "it is deleted", 60)
    eventually(lambda: not refusal(fleet, words), "the condition goes", 60)


OTHER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "not-ours"}
THEIR_SELECTOR: JSON = {"matchLabels": {"a": "b"}}
THEIR_TEMPLATE: JSON = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "a", "image": "a"}]},
}
THEIR_ROLE: JSON = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "theirs"}
TAKEN: dict[str, tuple[str, JSON]] = {
    "Service": ("chat", {"spec": {"ports": [{"port": 80}]}}),
    "ConfigMap": ("chat-llmfleet-memory", {"data": {"rejected": "[]"}}),
    "ServiceAccount": ("chat-router", {}),
    "PodDisruptionBudget": ("chat-engine", {"spec": {"selector": THEIR_SELECTOR}}),
    "NetworkPolicy": ("chat-engine", {"spec": {"podSelector": THEIR_SELECTOR}}),
    "Role": ("chat-router", {"rules": []}),
    "RoleBinding": ("chat-router", {"roleRef": THEIR_ROLE}),
    "Deployment": (
        "chat-router",
        {"spec": {"selector": THEIR_SELECTOR, "template": THEIR_TEMPLATE}},
    ),
}
"""Every kind of child but those whose names nobody can know before: Secret, ControllerRevision."""


@pytest.mark.parametrize("labelled", [False, True], ids=["unlabelled", "with our label"])
def test_children_when_their_names_belong_to_others_then_a_condition_and_nothing_is_touched(
    operator: OperatorProcess, fleet: Fleet, labelled: bool
) -> None:
    made = {}
    for kind, (name, body) in TAKEN.items():
        meta: JSON = {"name": name, "ownerReferences": [{**OTHER, "controller": True}]}
        if labelled:
            meta["labels"] = {"llmfleet.dev/deployment": "chat"}
        made[kind] = fleet.server.create(
            fleet.path(kind), {**copy.deepcopy(body), "metadata": meta}
        )
    fleet.apply(llm_deployment())

    def all_named() -> bool:
        found = fleet.condition("NameTaken")
        return bool(found) and all(
            f"{kind} {name}" in found["message"] for kind, (name, _) in TAKEN.items()
        )

    eventually(all_named, "NameTaken names every one")
    operator.wait_quiet()
    assert_no_loop(operator)
    for kind, (name, _) in TAKEN.items():
        assert fleet.child(kind, name) == made[kind]
    for kind, (name, _) in TAKEN.items():
        fleet.server.request("DELETE", fleet.path(kind, name))
    eventually(lambda: fleet.condition("NameTaken") is None, "the condition goes", 60)
    for kind, (name, _) in TAKEN.items():
        eventually(lambda k=kind, n=name: fleet.child(k, n), f"{kind} {name} is made")  # type: ignore[misc]


def test_namespace_when_it_is_being_deleted_then_no_crash_no_loop_and_a_condition(
    operator: OperatorProcess, fleet: Fleet
) -> None:
    served(operator, fleet)
    # Nobody finalizes namespaces here, so it stays Terminating, and refuses whatever is new.
    fleet.server.request("DELETE", f"/api/v1/namespaces/{fleet.namespace}")
    fleet.server.request("DELETE", fleet.path("Service", "chat"))
    fleet.server.request("DELETE", fleet.path("PodDisruptionBudget", "chat-router"))
    eventually(lambda: refusal(fleet, "because it is being terminated"), "a condition says so")
    assert_no_loop(operator)
    assert operator.process.poll() is None


def test_status_when_edited_by_hand_then_it_is_put_right_and_no_child_changes(
    operator: OperatorProcess, fleet: Fleet
) -> None:
    served(operator, fleet)
    true_status = (fleet.resource() or {})["status"]
    children = {one["metadata"]["name"]: one for one in fleet.children("Deployment")}
    before = sum(operator.writes().values())
    lies = {
        "phase": "Healthy",
        "message": "all is well",
        "observedGeneration": 99,
        "servedRevision": "forged",
        "specRevision": "forged",
        "ready": "9/9",
        "replicas": 9,
        "conditions": [{**one, "status": "Unknown"} for one in true_status["conditions"]],
    }
    fleet.patch(fleet.resource_path("chat") + "/status", {"status": lies})

    def truth(status: JSON) -> JSON:
        conditions = [(one["type"], one["status"]) for one in status["conditions"]]
        kept = {key: status.get(key) for key in lies if key != "conditions"}
        return {**kept, "conditions": conditions}

    def right() -> bool:
        return truth((fleet.resource() or {})["status"]) == truth(true_status)

    eventually(right, "the status is true again")
    operator.wait_quiet()
    assert sum(operator.writes().values()) - before <= MOST_WRITES
    assert {one["metadata"]["name"]: one for one in fleet.children("Deployment")} == children
