"""One namespace with LLMDeployments, as its users and a kubelet see it."""

from __future__ import annotations

from typing import Any

from hack.controlplane.apiserver import ApiServer

JSON = dict[str, Any]

DEPLOYMENTS = "/apis/llmfleet.dev/v1alpha1/namespaces/{}/llmdeployments"
CHILD_PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ControllerRevision": "/apis/apps/v1/namespaces/{}/controllerrevisions",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
}


def llm_deployment(name: str = "chat", **spec: Any) -> JSON:
    """A valid LLMDeployment without accelerators."""
    return {
        "apiVersion": "llmfleet.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"source": "pvc://models/tiny-llama", "servedName": "tiny"},
            "accelerator": {"type": "cpu"},
            "replicas": 1,
            **spec,
        },
    }


class Fleet:
    """One namespace, seen as its users and its kubelet see it."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self.server = server
        self.namespace = namespace

    def path(self, kind: str, name: str = "") -> str:
        """Of the children of a kind, or of one."""
        return CHILD_PATHS[kind].format(self.namespace) + (f"/{name}" if name else "")

    def resource_path(self, name: str = "") -> str:
        """Of the LLMDeployments, or of one."""
        return DEPLOYMENTS.format(self.namespace) + (f"/{name}" if name else "")

    def apply(self, body: JSON) -> JSON:
        """Create an LLMDeployment; raises AssertionError with the refusal."""
        return self.server.create(self.resource_path(), body)

    def get(self, path: str) -> JSON | None:
        """An object, or None where there is none."""
        answer = self.server.request("GET", path)
        assert answer.status_code in (200, 404), answer.text
        return answer.json() if answer.status_code == 200 else None

    def resource(self, name: str = "chat") -> JSON | None:
        """An LLMDeployment."""
        return self.get(self.resource_path(name))

    def child(self, kind: str, name: str) -> JSON | None:
        """An object of a kind."""
        return self.get(self.path(kind, name))

    def children(self, kind: str) -> list[JSON]:
        """Objects of a kind that carry the label of an LLMDeployment."""
        listed = self.get(self.path(kind)) or {}
        return [
            item
            for item in listed["items"]
            if (item["metadata"].get("labels") or {}).get("llmfleet.dev/deployment")
        ]

    def condition(self, kind: str, name: str = "chat") -> JSON | None:
        """A condition in an LLMDeployment's status."""
        status = (self.resource(name) or {}).get("status") or {}
        return next((one for one in status.get("conditions") or [] if one["type"] == kind), None)

    def patch(
        self, path: str, body: Any, manager: str = "kubectl-edit", kind: str = "merge"
    ) -> JSON:
        """Patch any object as this field manager; raises AssertionError with the refusal."""
        types = {"merge": "application/merge-patch+json", "json": "application/json-patch+json"}
        types["strategic"] = "application/strategic-merge-patch+json"
        answer = self.server.request("PATCH", f"{path}?fieldManager={manager}", body, types[kind])
        assert answer.status_code == 200, answer.text
        stored: JSON = answer.json()
        return stored

    def events(self, reason: str) -> list[JSON]:
        """Events with this reason."""
        listed = self.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events") or {}
        return [event for event in listed["items"] if event["reason"] == reason]
