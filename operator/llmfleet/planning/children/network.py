"""NetworkPolicies of an LLMDeployment: who may open a connection to its engines and routers.

Only incoming connections are limited. What engines and routers may open themselves (model hubs,
DNS, the API server) differs between clusters and is left to the namespace's own policies.
"""

from __future__ import annotations

from typing import Final

from llmfleet.api import LLMDeployment
from llmfleet.planning.children.engines.pod import HEALTH_PORT
from llmfleet.planning.children.engines.pod import HTTP_PORT as ENGINE_PORT
from llmfleet.planning.children.naming import (
    NETWORKING,
    make_child,
    object_labels,
    router_name,
    selector_labels,
)
from llmfleet.planning.children.router_pod import AGENT_PORT, PREVIEW_PORT
from llmfleet.planning.children.router_pod import HTTP_PORT as ROUTER_PORT
from llmfleet.planning.plan import Child
from llmfleet.planning.snapshot import JSON, NetworkSettings, ObjectKey

NAMESPACE_NAME_LABEL: Final = "kubernetes.io/metadata.name"
"""Label that the API server itself puts on every Namespace, so nobody can choose its value."""


def policy_keys(name: str) -> tuple[ObjectKey, ObjectKey]:
    """The two policies of an LLMDeployment: engine's and router's."""
    return _key(f"{name}-engine"), _key(router_name(name))


def build_network_policies(
    deployment: LLMDeployment, settings: NetworkSettings
) -> tuple[Child, Child]:
    """Engines answer their routers, routers their clients, both the operator and Prometheus.

    Probes are not listed: traffic from a pod's own node is always allowed (Kubernetes,
    NetworkPolicy, "the two sorts of pod isolation").
    """
    name = deployment.metadata.name
    engine, router = policy_keys(name)
    prometheus = {
        "namespaceSelector": {"matchLabels": dict(settings.prometheus_namespace_labels)},
        "podSelector": {"matchLabels": dict(settings.prometheus_pod_labels)},
    }
    operator = {
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: settings.operator_namespace}},
        "podSelector": {"matchLabels": dict(settings.operator_pod_labels)},
    }
    routers = {"podSelector": {"matchLabels": selector_labels(name, "router")}}
    return (
        _policy(
            deployment,
            engine,
            "engine",
            [_ingress(ENGINE_PORT, routers), _ingress(HEALTH_PORT, operator, prometheus)],
        ),
        _policy(
            deployment,
            router,
            "router",
            # No "from": whoever reaches a Service may ask; the agent's port is for two only.
            [
                _ingress(ROUTER_PORT),
                _ingress(PREVIEW_PORT),
                _ingress(AGENT_PORT, operator, prometheus),
            ],
        ),
    )


def _key(name: str) -> ObjectKey:
    return ObjectKey(api_version=NETWORKING, kind="NetworkPolicy", name=name)


def _ingress(port: int, *peers: JSON) -> JSON:
    rule: JSON = {"ports": [{"port": port, "protocol": "TCP"}]}
    return {**rule, "from": list(peers)} if peers else rule


def _policy(deployment: LLMDeployment, key: ObjectKey, component: str, rules: list[JSON]) -> Child:
    name = deployment.metadata.name
    return make_child(
        deployment,
        key,
        object_labels(name, component),
        {
            "spec": {
                "podSelector": {"matchLabels": selector_labels(name, component)},
                "policyTypes": ["Ingress"],
                "ingress": rules,
            }
        },
    )
