"""Rights granted = rights used: the audit log of a whole life, against the chart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hack.controlplane.apiserver import ApiServer, find_binary, running_api_server
from hack.processes.fleet import Fleet, llm_deployment
from hack.processes.operator import running_operator
from hack.processes.waiting import eventually
from hack.security.rendered import chart

JSON = dict[str, Any]
Right = tuple[str, str, str]
"""API group, resource with its subresource, verb."""

OPERATOR = "system:serviceaccount:default:llmfleet"
AUDIT_ALL: JSON = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [OPERATOR]}, {"level": "None"}],
}

UNUSED_ON_PURPOSE = {
    # A Role can only be given by who holds its rights; routers list and watch EndpointSlices.
    ("discovery.k8s.io", "endpointslices", "list"),
    ("discovery.k8s.io", "endpointslices", "watch"),
    # `restart` deletes pods of what is served, and without kubelets nothing is; it is used in
    # tests/e2e/test_3_acts.py.
    ("", "pods", "delete"),
    # The admission policy asks for it; there is no such subresource to write to.
    ("llmfleet.dev", "llmdeployments/memory", "update"),
}

CHILDREN = {
    "Deployment": "chat-router",
    "Service": "chat",
    "ServiceAccount": "chat-router",
    "ConfigMap": "chat-llmfleet-memory",
    "PodDisruptionBudget": "chat-router",
    "NetworkPolicy": "chat-router",
    "Role": "chat-router",
    "RoleBinding": "chat-router",
}


@pytest.fixture(scope="module")
def watched_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server that notes the operator's reads too."""
    directory = tmp_path_factory.mktemp("rights")
    with running_api_server(directory, AUDIT_ALL) as server:
        server.install_crd()
        yield server


@pytest.fixture(scope="module")
def used(watched_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> set[Right]:
    """What the operator asked for while an object was made, edited, rolled out and deleted."""
    directory = tmp_path_factory.mktemp("operators")
    fleet = Fleet(watched_server, watched_server.create_namespace())
    with running_operator(watched_server, directory) as operator:
        operator.wait_leading()
        fleet.apply(llm_deployment(rollout={"revisionHistoryLimit": 1}))
        for kind, name in CHILDREN.items():
            eventually(lambda kind=kind, name=name: fleet.child(kind, name), f"{kind} is made")
        _add_stuck_pod(fleet)
        _edit_children(fleet)
        _roll_out(fleet)
        asked = watched_server.directory / "audit.log"
        eventually(lambda: "/nodes/n1" in asked.read_text(), "its node is asked for", 90)
        eventually(lambda: "involvedObject.uid" in asked.read_text(), "so are its Events", 90)
    _wait_without_policies(fleet, directory)
    entries = (watched_server.directory / "audit.log").read_text().splitlines()
    return set(filter(None, (_right(json.loads(line)) for line in entries)))


def test_rights_when_compared_with_the_audit_log_then_none_is_granted_without_use(
    used: set[Right],
) -> None:
    assert sorted(granted() - used - UNUSED_ON_PURPOSE) == []


def test_rights_when_compared_with_the_audit_log_then_none_is_missing(used: set[Right]) -> None:
    assert sorted(used - granted()) == []


def test_secrets_when_the_audit_log_is_read_then_they_are_only_made(used: set[Right]) -> None:
    assert {right for right in used if right[1] == "secrets"} == {("", "secrets", "create")}


def granted() -> set[Right]:
    """What the chart gives to the operator, cluster-wide and in its own namespace."""
    manifests = chart(str(find_binary("helm")), "--set", "rbac.aggregate=false")
    return {
        (group, resource, verb)
        for body in manifests
        if body["kind"] in {"ClusterRole", "Role"}
        for rule in body["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _right(entry: JSON) -> Right | None:
    reference = entry.get("objectRef")
    allowed = entry.get("annotations", {}).get("authorization.k8s.io/decision") == "allow"
    if entry["user"]["username"] != OPERATOR or reference is None or not allowed:
        return None
    resource = "/".join(
        part for part in (reference.get("resource"), reference.get("subresource")) if part
    )
    if resource == "" or reference.get("apiGroup") == "authorization.k8s.io":
        return None
    return reference.get("apiGroup", ""), resource, entry["verb"]


def _add_stuck_pod(fleet: Fleet) -> None:
    """A router pod that its node does not begin: what tells why is asked for after a while."""
    labels = {"llmfleet.dev/deployment": "chat", "llmfleet.dev/component": "router"}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "chat-router-1", "uid": "r"}
    meta = {"name": "stuck", "labels": labels, "ownerReferences": [{**owner, "controller": True}]}
    spec = {"nodeName": "n1", "containers": [{"name": "router", "image": "r"}]}
    fleet.server.create(
        f"/api/v1/namespaces/{fleet.namespace}/pods", {"metadata": meta, "spec": spec}
    )


def _edit_children(fleet: Fleet) -> None:
    """Each child loses a label by hand, which the operator puts back: a patch of every kind."""
    for kind, name in CHILDREN.items():
        path = fleet.path(kind, name)
        fleet.patch(path, {"metadata": {"labels": {"llmfleet.dev/component": "other"}}})

        def restored(kind: str = kind, name: str = name) -> bool:
            labels = ((fleet.child(kind, name) or {}).get("metadata") or {}).get("labels") or {}
            return labels.get("llmfleet.dev/component") != "other"

        if kind != "ConfigMap":  # the memory has no such label; its data is what is kept true
            eventually(restored, f"{kind} is put back")
    (stored,) = fleet.children("ControllerRevision")
    path = fleet.path("ControllerRevision", stored["metadata"]["name"])
    fleet.patch(path, {"metadata": {"ownerReferences": []}})
    eventually(lambda: (fleet.get(path) or {})["metadata"].get("ownerReferences"), "it is owned")
    memory = fleet.path("ConfigMap", "chat-llmfleet-memory")
    data = (fleet.get(memory) or {})["data"]
    fleet.patch(memory, {"data": {**dict.fromkeys(data, None), "rolloutId": "{}"}})
    eventually(lambda: (fleet.get(memory) or {})["data"] == data, "the memory is put back")


def _roll_out(fleet: Fleet) -> None:
    """New revisions before any was ready: the old ones, and their history, are deleted."""
    for number in range(1, 4):
        limit = {"spec": {"engine": {"maxModelLen": 1024 * number}}}
        fleet.patch(fleet.resource_path("chat"), limit)
        wanted = number + 1

        def rolled(wanted: int = wanted) -> bool:
            resource = fleet.resource() or {}
            seen: int = (resource.get("status") or {}).get("observedGeneration", 0)
            return seen >= wanted

        eventually(rolled, f"generation {wanted} is observed")
    eventually(lambda: len(fleet.children("ControllerRevision")) <= 2, "history is pruned")
    eventually(lambda: len(fleet.children("Deployment")) == 2, "old engines are deleted")


def _wait_without_policies(fleet: Fleet, directory: Path) -> None:
    """A restart that makes no NetworkPolicies removes those there are."""
    server = fleet.server
    with running_operator(server, directory, LLMFLEET_NETWORK_POLICIES="false"):
        eventually(lambda: not fleet.children("NetworkPolicy"), "policies are removed")


def test_docs_when_compared_with_the_chart_then_the_list_of_rights_is_true() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "operator.md").read_text()
    section = text.split("## Rights, verb by verb")[1].split("\n## ")[0]
    listed: set[Right] = set()
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and "`" in line:
            group = "" if cells[0] == "core" else cells[0].strip("`")
            for resource in cells[1].split(","):
                for verb in cells[2].split(","):
                    listed.add((group, resource.strip().strip("`"), verb.strip()))
    rules = (
        Path(__file__).resolve().parents[3] / "charts/llmfleet/templates/_rules.tpl"
    ).read_text()
    plain = yaml.safe_load("\n".join(line for line in rules.splitlines() if "{{" not in line))
    chart_rights = {
        (group, resource, verb)
        for rule in plain
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert listed == chart_rights
