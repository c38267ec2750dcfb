"""A real API server that enforces Pod Security "restricted" admits every pod llmfleet runs."""

from __future__ import annotations

import copy
import secrets
from typing import Any

import pytest
from hack.controlplane.apiserver import ApiServer, find_binary
from hack.security.rendered import chart, children, resources

JSON = dict[str, Any]
RESOURCES = dict(resources())


@pytest.fixture(scope="module")
def restricted(api_server: ApiServer) -> str:
    """A namespace that enforces the profile, and the classes that pods name."""
    name = f"restricted-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api_server.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    api_server.request(
        "POST",
        "/apis/scheduling.k8s.io/v1/priorityclasses",
        {"metadata": {"name": "high"}, "value": 10},
    )
    api_server.request(
        "POST",
        "/apis/node.k8s.io/v1/runtimeclasses",
        {"metadata": {"name": "nvidia"}, "handler": "nvidia"},
    )
    return name


def templates(bodies: Any) -> list[JSON]:
    return [body["spec"]["template"] for body in bodies if body["kind"] == "Deployment"]


def admit(server: ApiServer, namespace: str, template: JSON) -> tuple[int, str]:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "generateName": "pod-", "namespace": namespace},
        "spec": template["spec"],
    }
    answer = server.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
    return answer.status_code, answer.text


@pytest.mark.parametrize("name", RESOURCES)
def test_pods_when_the_namespace_is_restricted_then_they_are_admitted(
    api_server: ApiServer, restricted: str, name: str
) -> None:
    for template in templates(children(RESOURCES[name])):
        status, text = admit(api_server, restricted, template)
        assert status == 201, text


def test_operator_when_the_namespace_is_restricted_then_it_is_admitted(
    api_server: ApiServer, restricted: str
) -> None:
    (template,) = templates(chart(str(find_binary("helm"))))
    status, text = admit(api_server, restricted, template)
    assert status == 201, text


def test_pod_when_it_may_escalate_then_the_same_namespace_refuses_it(
    api_server: ApiServer, restricted: str
) -> None:
    template = copy.deepcopy(templates(children(RESOURCES["smallest"]))[0])
    template["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    status, text = admit(api_server, restricted, template)
    assert status == 403
    assert "violates PodSecurity" in text
