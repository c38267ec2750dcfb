"""The chart as Helm renders it: rights, restrictions, images, and what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmfleet.cli.doctor.rights import RIGHTS, Scope

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "llmfleet"
CACHE = Path(os.environ.get("LLMFLEET_CACHE") or Path.home() / ".cache" / "llmfleet")
HELM = shutil.which("helm", path=f"{CACHE / 'bin'}:{os.environ.get('PATH', '')}")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(HELM is None, reason="no helm yet: `make cluster-build` builds it"),
]

JSON = dict[str, Any]


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    assert HELM
    return subprocess.run([HELM, *words], capture_output=True, text=True, check=False, timeout=60)


def render(*settings: str) -> list[JSON]:
    """Manifests of `helm template` with these --set values."""
    flags = [word for setting in settings for word in ("--set", setting)]
    done = helm(
        "template", "llmfleet", str(CHART), "--namespace", "ops", "--kube-version", "1.35.4", *flags
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def only(documents: list[JSON], kind: str, name: str | None = None) -> JSON:
    found = [
        document
        for document in documents
        if document["kind"] == kind and name in {None, document["metadata"]["name"]}
    ]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def rules_of(role: JSON) -> dict[tuple[str, str], set[str]]:
    """(group, resource) → verbs."""
    granted: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                granted.setdefault((group, resource), set()).update(rule["verbs"])
    return granted


def test_lint_when_values_are_the_default_then_it_passes() -> None:
    done = helm("lint", "--strict", str(CHART))

    assert done.returncode == 0, done.stdout


def test_operator_when_rendered_then_its_pods_are_restricted_probed_and_two() -> None:
    spec = only(render(), "Deployment")["spec"]
    pod = spec["template"]["spec"]
    container = pod["containers"][0]

    assert spec["replicas"] == 2
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert "limits" in container["resources"]


def test_operator_when_rendered_then_it_gets_the_environment_of_the_contract() -> None:
    container = only(render("images.registry=mirror/"), "Deployment")["spec"]["template"]["spec"][
        "containers"
    ][0]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}

    assert set(environment) == {
        "LLMFLEET_RUNTIME_IMAGE_GPU", "LLMFLEET_RUNTIME_IMAGE_CPU", "LLMFLEET_ROUTER_IMAGE",
        "LLMFLEET_ALLOW_FILE_SOURCES", "LLMFLEET_NETWORK_POLICIES",
        "LLMFLEET_OPERATOR_POD_LABELS", "LLMFLEET_PROMETHEUS_NAMESPACE_LABELS",
        "LLMFLEET_PROMETHEUS_POD_LABELS", "LLMFLEET_POD_NAME", "LLMFLEET_POD_UID",
        "LLMFLEET_POD_NAMESPACE", "LLMFLEET_WATCH_NAMESPACES", "LLMFLEET_LOG_LEVEL",
        "LLMFLEET_LOG_FORMAT", "LLMFLEET_LEADER_ELECTION",
    }  # fmt: skip
    assert environment["LLMFLEET_ROUTER_IMAGE"] == "mirror/llmfleet/router:0.1.0"
    assert environment["LLMFLEET_ALLOW_FILE_SOURCES"] == "false"


def test_image_when_a_digest_is_given_then_it_wins_over_the_tag() -> None:
    digest = "sha256:" + "0" * 64
    documents = render(f"images.operator.digest={digest}", "images.operator.tag=dev")
    container = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]

    assert container["image"] == f"llmfleet/operator@{digest}"


def test_rights_when_rendered_then_secrets_are_never_read_and_nothing_is_a_wildcard() -> None:
    granted = rules_of(only(render(), "ClusterRole", "llmfleet"))

    assert granted[("", "secrets")] == {"create"}
    assert granted[("llmfleet.dev", "llmdeployments")] == {"get", "list", "watch"}
    assert ("", "pods/log") not in granted
    for (group, resource), verbs in granted.items():
        assert "*" not in {group, resource} | verbs


def test_rights_when_routers_get_a_role_then_the_operator_holds_each_of_its_rights() -> None:
    granted = rules_of(only(render(), "ClusterRole", "llmfleet"))
    routers = {
        ("llmfleet.dev", "llmdeployments"): {"get", "list", "watch"},
        ("discovery.k8s.io", "endpointslices"): {"list", "watch"},
    }

    for what, verbs in routers.items():
        assert verbs <= granted[what], f"the API server would refuse a Role with {what}"


def test_rights_when_namespaces_are_listed_then_they_end_there() -> None:
    documents = render("watchNamespaces={team-a,team-b}")
    everywhere = rules_of(only(documents, "ClusterRole", "llmfleet"))
    roles = [one for one in documents if one["kind"] == "Role" and "team" in str(one["metadata"])]

    assert everywhere == {
        ("apiextensions.k8s.io", "customresourcedefinitions"): {"get"},
        ("", "nodes"): {"get"},
    }
    assert {role["metadata"]["namespace"] for role in roles} == {"team-a", "team-b"}
    assert all(("apps", "deployments") in rules_of(role) for role in roles)


def test_crd_when_rendered_then_it_is_the_generated_one_and_outlives_the_release() -> None:
    crd = only(render(), "CustomResourceDefinition")
    source = yaml.safe_load((ROOT / "crds" / "llmfleet.dev_llmdeployments.yaml").read_text())

    assert crd["metadata"]["annotations"].pop("helm.sh/resource-policy") == "keep"
    assert crd == source
    kinds = {document["kind"] for document in render("crds.install=false")}
    assert "CustomResourceDefinition" not in kinds


def test_monitors_when_not_asked_for_then_there_are_none() -> None:
    on = render("monitoring.serviceMonitor.enabled=true", "monitoring.podMonitor.enabled=true")

    assert {"ServiceMonitor", "PodMonitor"} <= {document["kind"] for document in on}
    assert not {"ServiceMonitor", "PodMonitor"} & {document["kind"] for document in render()}


def test_prometheus_when_it_wants_credentials_then_each_secret_is_mounted_where_it_is_read() -> (
    None
):
    secrets = {
        "LLMFLEET_PROMETHEUS_BASIC_AUTH_DIR": ("basicAuthSecret", ""),
        "LLMFLEET_PROMETHEUS_CA_FILE": ("caSecret", "/ca.crt"),
        "LLMFLEET_PROMETHEUS_CLIENT_CERTIFICATE_DIR": ("clientCertificateSecret", ""),
    }
    asked = ["prometheus.url=https://p", "prometheus.headers.X-Scope-OrgID=team-a"]
    asked += [f"prometheus.{value}=of-{value.lower()}" for value, _ in secrets.values()]
    pod = only(render(*asked), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["LLMFLEET_PROMETHEUS_HEADERS"] == '{"X-Scope-OrgID":"team-a"}'
    assert "LLMFLEET_PROMETHEUS_TOKEN_FILE" not in environment
    mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    volumes = {each["name"]: each.get("secret") for each in pod["volumes"]}
    for name, (value, file) in secrets.items():
        volume = mounted[environment[name].removesuffix(file)]
        assert volumes[volume] == {"secretName": f"of-{value.lower()}"}


def test_secrets_when_their_names_are_numbers_then_they_are_still_texts() -> None:
    named = {
        "prometheus.tokenSecret": "123", "prometheus.caSecret": "1e3",
        "prometheus.clientCertificateSecret": "null", "notifications.urlSecret": "true",
    }  # fmt: skip
    flags = [word for each in named.items() for word in ("--set-string", "=".join(each))]
    done = helm("template", "x", str(CHART), "--kube-version", "1.35.4", *flags)
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    pod = only(documents, "Deployment")["spec"]["template"]["spec"]
    found = {each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}
    found |= {
        each["valueFrom"]["secretKeyRef"]["name"]
        for each in pod["containers"][0]["env"]
        if "secretKeyRef" in (each.get("valueFrom") or {})
    }
    assert found == set(named.values())


def test_operator_metrics_when_scraped_then_their_namespace_is_the_objects() -> None:
    (endpoint,) = only(render("monitoring.serviceMonitor.enabled=true"), "ServiceMonitor")["spec"][
        "endpoints"
    ]
    assert endpoint["honorLabels"] is True


def test_budget_when_one_replica_then_there_is_none() -> None:
    assert only(render(), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    kinds = {document["kind"] for document in render("replicas=1")}
    assert "PodDisruptionBudget" not in kinds


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("replica=3", "replica"),
        ("logging.level=loud", "level"),
        ("images.operator.digest=latest", "digest"),
        ("watchNamespaces={Team_A}", "watchNamespaces"),
        ("prometheus.tokenSecret=a,prometheus.basicAuthSecret=b", "leave one out"),
        ("prometheus.tokenSecret=a,prometheus.headers.authorization=b", "leave one out"),
        ("prometheus.tokenSecret=A_b", "tokenSecret"),
        ("prometheus.basicAuthSecret=a b", "basicAuthSecret"),
        ("prometheus.caSecret=a}", "caSecret"),
        ("prometheus.clientCertificateSecret=-a", "clientCertificateSecret"),
        ("notifications.urlSecret=a/b", "urlSecret"),
        ("prometheus.headers.X Y=a", "headers"),
        ("prometheus.headers.X=ä", "headers"),
        ("prometheus.matchers.a-b=c", "matchers"),
        ("prometheus.matchers.__name__=c", "matchers"),
        ("prometheus.matchers.llmdeployment_namespace=c", "matchers"),
    ],
)
def test_values_when_wrong_then_they_are_refused_by_name(setting: str, named: str) -> None:
    done = helm("template", "x", str(CHART), "--kube-version", "1.35.4", "--set", setting)

    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.parametrize("watched", [False, True], ids=["everywhere", "team-a"])
def test_rights_when_the_chart_gives_them_then_the_doctor_looks_for_the_same(watched: bool) -> None:
    rendered = render(*(["watchNamespaces={team-a}"] if watched else []))
    everywhere = rules_of(only(rendered, "ClusterRole", "llmfleet"))
    own = rules_of(only(rendered, "Role", "llmfleet-leader"))
    served = rules_of(only(rendered, "Role", "llmfleet")) if watched else {}

    def looked_for(*scopes: Scope) -> dict[tuple[str, str], set[str]]:
        found: dict[tuple[str, str], set[str]] = {}
        for right in RIGHTS:
            if right.scope in scopes:
                found.setdefault((right.group, right.resource), set()).update(right.verbs)
        return found

    assert looked_for(Scope.OWN) == own
    if watched:
        assert (looked_for(Scope.CLUSTER), looked_for(Scope.SERVED)) == (everywhere, served)
    else:
        assert looked_for(Scope.CLUSTER, Scope.SERVED) == everywhere
