"""Manifests of the router: its Deployment, stable address, rights, budget, engine token."""

from __future__ import annotations

from llmfleet.api import GROUP, PLURAL, LLMDeployment
from llmfleet.planning.children.budgets import build_router_budget
from llmfleet.planning.children.naming import (
    APPS,
    CORE,
    RBAC,
    make_child,
    object_labels,
    router_name,
    selector_labels,
    token_name,
)
from llmfleet.planning.children.router_pod import build_pod_template
from llmfleet.planning.plan import Child, ChildMode
from llmfleet.planning.snapshot import JSON, ObjectKey, OperatorSettings


def build_router(deployment: LLMDeployment, settings: OperatorSettings) -> tuple[Child, ...]:
    """Everything that makes the router, in an order that can be applied."""
    preview = () if deployment.preview_url is None else (_preview_service(deployment),)
    return (
        _service_account(deployment),
        *_rights(deployment),
        _service(deployment),
        *preview,
        _deployment(deployment, settings),
        build_router_budget(deployment),
    )


def build_token_secret(deployment: LLMDeployment) -> Child:
    """The engine token's Secret, without its content: a pure function draws no random number.

    Whoever creates it puts 32 random bytes into ``data.token``.
    """
    key = ObjectKey(api_version=CORE, kind="Secret", name=token_name(deployment))
    labels = object_labels(deployment.metadata.name, "router")
    return make_child(deployment, key, labels, {"type": "Opaque"}, mode=ChildMode.CREATE_ONCE)


def _key(api_version: str, kind: str, deployment: LLMDeployment) -> ObjectKey:
    return ObjectKey(api_version=api_version, kind=kind, name=router_name(deployment.metadata.name))


def _child(deployment: LLMDeployment, key: ObjectKey, content: JSON) -> Child:
    return make_child(deployment, key, object_labels(deployment.metadata.name, "router"), content)


def _service_account(deployment: LLMDeployment) -> Child:
    # The token is mounted by the pod that wants it, not by every pod that names the account.
    return _child(
        deployment,
        _key(CORE, "ServiceAccount", deployment),
        {"automountServiceAccountToken": False},
    )


def _rights(deployment: LLMDeployment) -> tuple[Child, Child]:
    role, binding = _key(RBAC, "Role", deployment), _key(RBAC, "RoleBinding", deployment)
    name, account = deployment.metadata.name, role.name
    rules = [
        {
            "apiGroups": [GROUP],
            "resources": [PLURAL],
            "resourceNames": [name],
            "verbs": ["list", "watch"],
        },
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        },
    ]
    subject = {
        "kind": "ServiceAccount",
        "name": account,
        "namespace": deployment.metadata.namespace,
    }
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role.name}
    return (
        _child(deployment, role, {"rules": rules}),
        _child(deployment, binding, {"roleRef": reference, "subjects": [subject]}),
    )


def preview_key(name: str) -> ObjectKey:
    """The Service that a blue-green rollout's new set is reached at."""
    return ObjectKey(api_version=CORE, kind="Service", name=f"{name}-preview")


def _service(deployment: LLMDeployment) -> Child:
    name = deployment.metadata.name
    return _routed(deployment, ObjectKey(api_version=CORE, kind="Service", name=name), "http")


def _preview_service(deployment: LLMDeployment) -> Child:
    return _routed(deployment, preview_key(deployment.metadata.name), "preview")


def _routed(deployment: LLMDeployment, key: ObjectKey, target: str) -> Child:
    port = {"name": "http", "port": 80, "targetPort": target, "protocol": "TCP"}
    selector = selector_labels(deployment.metadata.name, "router")
    spec = {"type": "ClusterIP", "selector": selector, "ports": [port]}
    return _child(deployment, key, {"spec": spec})


def _deployment(deployment: LLMDeployment, settings: OperatorSettings) -> Child:
    name, router = deployment.metadata.name, deployment.spec.router
    labels = selector_labels(name, "router")
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return _child(
        deployment,
        _key(APPS, "Deployment", deployment),
        {
            "spec": {
                "replicas": router.replicas,
                "revisionHistoryLimit": 2,
                "selector": {"matchLabels": labels},
                "strategy": strategy,
                "template": build_pod_template(deployment, settings),
            }
        },
    )
