"""``kubectl llmfleet doctor`` against a real API server, where the real chart is installed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hack.controlplane.apiserver import ApiServer, find_binary, running_api_server
from hack.processes.fleet import Fleet, llm_deployment
from hack.processes.waiting import eventually

from llmfleet.api.installed_crd import CRD_NAME, CRD_PATH
from tests.unit.cli.played import run as run_program

JSON = dict[str, Any]
CHART = Path(__file__).resolve().parents[2] / "charts" / "llmfleet"
SYSTEM = "llmfleet-system"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/llmfleet"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLE = f"{RBAC}/clusterroles/llmfleet"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
MERGE = "application/merge-patch+json"
MONITORING = "monitoring.coreos.com"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server with the chart, and two operator pods that a kubelet would call ready."""
    with running_api_server(tmp_path_factory.mktemp("doctor")) as running:
        helm(running, "install", "--create-namespace")
        for number in range(2):
            add_operator_pod(running, f"llmfleet-{number}")
        patch(running, f"{DEPLOYMENT}/status", {"status": {"replicas": 2, "readyReplicas": 2}})
        renew(running, "kube-node-lease", "node-1")
        yield running


def helm(server: ApiServer, act: str, *words: str) -> None:
    command = [
        str(find_binary("helm")), "--kubeconfig", str(server.kubeconfig), act, "llmfleet",
        str(CHART), "--namespace", SYSTEM, *words,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def patch(server: ApiServer, path: str, body: JSON) -> None:
    answer = server.request("PATCH", path, body, MERGE)
    assert answer.status_code == 200, answer.text


def add_operator_pod(server: ApiServer, name: str) -> None:
    labels = {"app.kubernetes.io/name": "llmfleet", "app.kubernetes.io/instance": "llmfleet"}
    container = {"name": "operator", "image": "llmfleet/operator"}
    pods = f"/api/v1/namespaces/{SYSTEM}/pods"
    spec = {"containers": [container], "nodeName": "node-1"}
    server.create(pods, {"metadata": {"name": name, "labels": labels}, "spec": spec})
    conditions = [{"type": "Ready", "status": "True"}]
    patch(server, f"{pods}/{name}/status", {"status": {"conditions": conditions}})


def renew(
    server: ApiServer,
    namespace: str,
    name: str = "llmfleet-operator",
    holder: str = "somebody",
    ahead: timedelta = timedelta(),
) -> None:
    """Renew a Lease, by a clock that is ahead of the API server's."""
    at = (datetime.now(UTC) + ahead).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": holder, "renewTime": at, "leaseDurationSeconds": 3600}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
    server.apply(f"{LEASES.format(namespace)}/{name}", {**body, "spec": spec})


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    """A namespace, and an operator that leads: its first pod."""
    pod = server.request("GET", f"/api/v1/namespaces/{SYSTEM}/pods/llmfleet-0").json()
    renew(server, SYSTEM, holder=pod["metadata"]["uid"])
    renew(server, "kube-node-lease", "node-1")
    return Fleet(server, server.create_namespace())


@pytest.fixture
def small_account(fleet: Fleet, tmp_path: Path) -> Path:
    """A kubeconfig of somebody who may nothing but what everybody may."""
    token = fleet.server.service_account_token(fleet.namespace, "somebody")
    return fleet.server.write_kubeconfig(tmp_path / "kubeconfig", token)


def bind(fleet: Fleet, role: str) -> None:
    """Give the small account a role in its namespace."""
    fleet.server.create(fleet.path("RoleBinding"), binding(fleet, role))


def binding(fleet: Fleet, role: str) -> JSON:
    account = {"kind": "ServiceAccount", "name": "somebody", "namespace": fleet.namespace}
    group = "rbac.authorization.k8s.io"
    return {
        "metadata": {"name": role.replace(":", "-")},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [account],
    }


def run(fleet: Fleet, *words: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run_program(config or fleet.server.kubeconfig, "-n", fleet.namespace, "doctor", *words)


def examine(
    fleet: Fleet, *words: str, config: Path | None = None
) -> tuple[int, dict[str, list[JSON]]]:
    """The exit code, and the findings by check."""
    done = run(fleet, *words, "-o", "json", config=config)
    assert done.stderr == ""
    found: dict[str, list[JSON]] = {}
    for each in json.loads(done.stdout):
        assert set(each) == {"check", "state", "message", "fix"}
        assert (each["fix"] is not None) or each["state"] != "missing", each
        found.setdefault(each["check"], []).append(each)
    return done.returncode, found


def test_doctor_when_nothing_is_missing_then_every_check_says_ok_and_the_exit_code_is_0(
    fleet: Fleet,
) -> None:
    code, found = examine(fleet)
    assert {each["state"] for one in found.values() for each in one} == {"ok"}, found
    assert code == 0
    assert found["lease"][0]["message"] == f"llmfleet-0 holds the Lease {SYSTEM}/llmfleet-operator"
    shown = run(fleet)
    assert f"✓ lease          llmfleet-0 holds the Lease {SYSTEM}/llmfleet-operator" in shown.stdout
    assert shown.stdout.splitlines()[-1].endswith(" ok")


def test_doctor_when_whoever_asks_may_do_nothing_then_it_says_why_it_cannot_know(
    fleet: Fleet, small_account: Path
) -> None:
    code, found = examine(fleet, config=small_account)
    assert code == 1
    assert found["you"][0]["state"] == "missing"
    assert "rbac.aggregate" in found["you"][0]["fix"]
    # What everybody may see is seen.
    assert [each["state"] for each in found["lease"]] == ["ok"]
    assert [each["state"] for each in found["operator-clock"]] == ["ok"]
    for check in ("crd", "operator", "rights", "node-clocks", "scrape"):
        (one,) = found[check]
        assert one["state"] == "unknown"
        assert one["message"].startswith("cannot know, because you may not "), one

    bind(fleet, "llmfleet-view")  # nobody here aggregates it into view
    code, found = examine(fleet, config=small_account)
    assert (code, found["you"][0]["state"]) == (3, "ok")
    assert "you may not change them (patch llmdeployments)" in found["you"][0]["message"]


def test_doctor_when_asked_by_an_administrator_of_one_namespace_then_the_rights_there_are_known(
    fleet: Fleet, small_account: Path
) -> None:
    bind(fleet, "llmfleet-view")
    bind(fleet, "system:aggregate-to-admin")
    role = f"see-{fleet.namespace}"
    rule = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]}
    fleet.server.create(f"{RBAC}/clusterroles", {"metadata": {"name": role}, "rules": [rule]})
    fleet.server.create(f"{RBAC}/clusterrolebindings", binding(fleet, role))
    _, found = examine(fleet, config=small_account)
    known, rest = found["rights"]
    assert known["state"] == "ok"
    assert known["message"].endswith(f"may do all it needs in {fleet.namespace}")
    assert rest["state"] == "unknown"
    assert rest["message"].endswith("elsewhere")


def test_rights_when_a_role_lacks_one_then_it_is_named_with_what_it_is_for(fleet: Fleet) -> None:
    role = fleet.get(ROLE)
    assert role is not None
    rules = [each for each in role["rules"] if "pods" not in each["resources"]]
    patch(fleet.server, ROLE, {"rules": rules})
    try:
        code, found = examine(fleet)
    finally:
        patch(fleet.server, ROLE, {"rules": role["rules"]})
    assert code == 1
    assert found["rights"][0]["message"] == (
        f"the account of {SYSTEM}/llmfleet may not list, watch, delete pods (to see and restart"
        " pods)"
    )
    assert found["rights"][0]["fix"].startswith("helm upgrade llmfleet charts/llmfleet")


def test_crd_when_it_lacks_a_field_then_the_field_and_the_chart_value_are_named(
    fleet: Fleet,
) -> None:
    path = f"{CRD_PATH}/{CRD_NAME}"
    crd = fleet.get(path)
    assert crd is not None
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    field = spec["properties"].pop("previewUrl")
    patch(fleet.server, path, {"spec": {"versions": crd["spec"]["versions"]}})
    try:
        code, found = examine(fleet)
    finally:
        spec["properties"]["previewUrl"] = field
        patch(fleet.server, path, {"spec": {"versions": crd["spec"]["versions"]}})
    assert code == 1
    assert found["crd"][0]["message"].endswith("it lacks status.previewUrl")
    assert "crds.install=true" in found["crd"][0]["fix"]


def test_lease_when_nobody_renews_it_then_since_when_and_the_logs_to_read_are_told(
    fleet: Fleet,
) -> None:
    renew(fleet.server, SYSTEM, holder="")
    code, found = examine(fleet)
    assert code == 1
    assert found["lease"][0]["message"].startswith(
        f"nobody holds the operator's Lease {SYSTEM}/llmfleet-operator since "
    )
    assert found["lease"][0]["fix"].startswith("kubectl logs --selector ")
    assert f"-n {SYSTEM}" in found["lease"][0]["fix"]


@pytest.mark.parametrize("seconds", [-90, 90])
def test_clock_when_the_leader_s_or_a_node_s_is_wrong_then_the_node_is_named_and_nobody_is_dead(
    fleet: Fleet, seconds: int
) -> None:
    pod = fleet.get(f"/api/v1/namespaces/{SYSTEM}/pods/llmfleet-0")
    assert pod is not None
    wrong = timedelta(seconds=seconds)
    renew(fleet.server, SYSTEM, holder=pod["metadata"]["uid"], ahead=wrong)
    path = f"{LEASES.format(SYSTEM)}/llmfleet-operator"
    patch(fleet.server, path, {"spec": {"leaseDurationSeconds": 12}})
    renew(fleet.server, "kube-node-lease", "node-1", ahead=wrong)
    code, found = examine(fleet)
    assert code == 1
    how = "(89|90|91) s " + ("behind" if seconds < 0 else "ahead of")
    (operator,), (nodes,) = found["operator-clock"], found["node-clocks"]
    assert re.search(f"the operator's clock is {how} the API server's", operator["message"])
    assert "the node node-1" in operator["fix"]
    assert re.search(f"node-1 is {how} it", nodes["message"])
    # By its own words the Lease has ended, or will not for long; it was written just now.
    assert found["lease"][0]["state"] == "ok"


def test_operator_when_its_pods_are_not_ready_then_their_reasons_are_told(fleet: Fleet) -> None:
    status = f"{DEPLOYMENT}/status"
    pod = f"/api/v1/namespaces/{SYSTEM}/pods/llmfleet-1/status"
    patch(fleet.server, status, {"status": {"readyReplicas": 1}})
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    named = {"name": "operator", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    conditions = [{"type": "Ready", "status": "False"}]
    containers = [{**named, "state": waiting}]
    patch(
        fleet.server, pod,
        {"status": {"conditions": conditions, "containerStatuses": containers}},
    )  # fmt: skip
    try:
        code, found = examine(fleet)
    finally:
        patch(fleet.server, status, {"status": {"readyReplicas": 2}})
        ready = [{"type": "Ready", "status": "True"}]
        patch(fleet.server, pod, {"status": {"conditions": ready, "containerStatuses": None}})
    assert code == 1
    assert found["operator"][0]["message"] == (
        f"1 of 2 operator pods of {SYSTEM}/llmfleet are ready; llmfleet-1: ImagePullBackOff: no"
        " such image"
    )


def test_one_when_no_operator_serves_its_namespace_or_has_seen_it_then_that_is_told(
    fleet: Fleet,
) -> None:
    fleet.apply(llm_deployment())
    deployment = fleet.get(DEPLOYMENT)
    assert deployment is not None
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    watched = {"name": "LLMFLEET_WATCH_NAMESPACES", "value": "team-b"}
    others = [each for each in container["env"] if each["name"] != watched["name"]]
    template = {"spec": {"containers": [{**container, "env": [*others, watched]}]}}
    patch(fleet.server, DEPLOYMENT, {"spec": {"template": template}})
    try:
        code, found = examine(fleet, "chat")
    finally:
        template = {"spec": {"containers": [container]}}
        patch(fleet.server, DEPLOYMENT, {"spec": {"template": template}})
    assert code == 1
    assert found["served"][0]["fix"] == (
        f"set the chart value watchNamespaces={{team-b,{fleet.namespace}}}"
    )
    assert found["seen"][0]["state"] == "missing"
    assert found["routers"][0]["state"] == "unknown"
    # Its account has no rights in team-b either, as it has them in all namespaces: that is enough.
    assert found["rights"][0]["state"] == "ok"


def test_one_when_it_is_not_there_then_the_exit_code_is_no_finding_s(fleet: Fleet) -> None:
    done = run(fleet, "absent")
    assert (done.returncode, done.stdout) == (121, "")
    assert "is not there" in done.stderr


@pytest.fixture(scope="module")
def monitored(server: ApiServer) -> None:
    """The Prometheus operator's kinds."""
    for kind in ("ServiceMonitor", "PodMonitor", "Prometheus"):
        plural = f"{kind.lower()}es" if kind == "Prometheus" else f"{kind.lower()}s"
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version = {"name": "v1", "served": True, "storage": True}
        server.create(
            CRD_PATH,
            {
                "metadata": {"name": f"{plural}.{MONITORING}"},
                "spec": {
                    "group": MONITORING,
                    "scope": "Namespaced",
                    "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                    "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
                },
            },
        )
        path = f"/apis/{MONITORING}/v1/{plural}"
        eventually(lambda path=path: server.request("GET", path).status_code == 200, path)


def test_scrape_when_nobody_is_told_to_then_the_chart_values_are_named(
    fleet: Fleet, monitored: None
) -> None:
    code, found = examine(fleet)
    assert code == 1
    assert [each["fix"] for each in found["scrape"]] == [
        "set the chart value monitoring.serviceMonitor.enabled=true",
        "set the chart value monitoring.podMonitor.enabled=true",
    ]


def test_scrape_when_no_prometheus_selects_the_monitors_then_its_labels_are_named(
    fleet: Fleet, monitored: None
) -> None:
    monitors = [
        word
        for kind in ("serviceMonitor", "podMonitor")
        for word in ("--set", f"monitoring.{kind}.enabled=true")
    ]
    helm(fleet.server, "upgrade", *monitors)
    _, found = examine(fleet)
    assert [each["state"] for each in found["scrape"]] == ["unknown", "unknown"]

    wanted = {"matchLabels": {"release": "prom"}}
    path = f"/apis/{MONITORING}/v1/namespaces/{fleet.namespace}/prometheuses"
    spec = {
        "serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": {},
        "podMonitorSelector": wanted, "podMonitorNamespaceSelector": {},
    }  # fmt: skip
    named = {"apiVersion": f"{MONITORING}/v1", "kind": "Prometheus"}
    fleet.server.create(path, {**named, "metadata": {"name": "prom"}, "spec": spec})
    _, found = examine(fleet)
    assert [each["state"] for each in found["scrape"]] == ["ok", "missing"]
    assert found["scrape"][1]["fix"] == (
        "set the chart value monitoring.podMonitor.labels.release=prom"
    )

    labels = ("--set", "monitoring.podMonitor.labels.release=prom")
    helm(fleet.server, "upgrade", *monitors, *labels)
    _, found = examine(fleet)
    assert [each["state"] for each in found["scrape"]] == ["ok", "ok"]
