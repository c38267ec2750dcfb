"""The chart's admission policies in an API server, and accounts with few rights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from hack.controlplane.apiserver import ApiServer, find_binary
from hack.security.rendered import chart

JSON = dict[str, Any]
REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
RIGHTS = "/apis/rbac.authorization.k8s.io/v1"
KINDS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


@contextlib.contextmanager
def installed_policies(server: ApiServer) -> Iterator[list[str]]:
    """The chart's policies for the time of a ``with``; they take a moment to be at work.

    Yields the names of the policies.
    """
    made = [body for body in chart(str(find_binary("helm"))) if body["kind"] in KINDS]
    for body in made:
        server.create(f"{REGISTRATION}/{KINDS[body['kind']]}", body)
    yield [body["metadata"]["name"] for body in made if not body["kind"].endswith("Binding")]
    for body in made:
        path = f"{REGISTRATION}/{KINDS[body['kind']]}/{body['metadata']['name']}"
        server.request("DELETE", path)


def grant(server: ApiServer, namespace: str, name: str, *rules: JSON) -> str:
    """Token of a ServiceAccount that may do this in its namespace."""
    token = server.service_account_token(namespace, name)
    role = {"metadata": {"name": name}, "rules": list(rules)}
    server.create(f"{RIGHTS}/namespaces/{namespace}/roles", role)
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
    server.create(f"{RIGHTS}/namespaces/{namespace}/rolebindings", binding)
    return token


def rule(group: str, resource: str, *verbs: str) -> JSON:
    """A rule of a Role."""
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
