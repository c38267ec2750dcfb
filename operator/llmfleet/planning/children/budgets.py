"""Disruption budgets: how many pods of a component may be evicted at once."""

from __future__ import annotations

from llmfleet.api import LLMDeployment
from llmfleet.planning.children.naming import (
    POLICY,
    make_child,
    object_labels,
    router_name,
    selector_labels,
)
from llmfleet.planning.plan import Child
from llmfleet.planning.snapshot import ObjectKey


def build_engine_budget(deployment: LLMDeployment) -> Child:
    """One engine pod at a time may be evicted; unhealthy ones always."""
    return _budget(deployment, f"{deployment.metadata.name}-engine", "engine")


def build_router_budget(deployment: LLMDeployment) -> Child:
    """The same of router pods."""
    return _budget(deployment, router_name(deployment.metadata.name), "router")


def _budget(deployment: LLMDeployment, name: str, component: str) -> Child:
    owner = deployment.metadata.name
    return make_child(
        deployment,
        ObjectKey(api_version=POLICY, kind="PodDisruptionBudget", name=name),
        object_labels(owner, component),
        {
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": selector_labels(owner, component)},
            }
        },
    )
