"""A revision's pool of engine pods, whatever the engine: its Deployment and headless Service."""

from __future__ import annotations

from dataclasses import replace

from llmfleet.api import LLMDeployment
from llmfleet.planning.children.engines.pod import HTTP_PORT
from llmfleet.planning.children.naming import (
    deployment_key,
    make_child,
    object_labels,
    selector_labels,
    service_key,
)
from llmfleet.planning.plan import Child
from llmfleet.planning.snapshot import JSON


def build_engine_deployment(
    deployment: LLMDeployment, revision: str, template: JSON, replicas: int
) -> Child:
    """A revision's Deployment, from its frozen template.

    Its own strategy matters only when somebody edits the template by hand: with maxUnavailable 0
    no serving pod is lost before the edit is put back.
    """
    name = deployment.metadata.name
    child = make_child(
        deployment,
        deployment_key(name, revision),
        object_labels(name, "engine", revision),
        {
            "spec": {
                "replicas": replicas,
                "revisionHistoryLimit": 0,
                "selector": {"matchLabels": selector_labels(name, "engine", revision)},
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
                },
                "template": template,
            }
        },
    )
    return replace(child, urgent=True)


def build_engine_service(deployment: LLMDeployment, revision: str) -> Child:
    """A revision's headless Service; its EndpointSlices are what routers follow."""
    name = deployment.metadata.name
    return make_child(
        deployment,
        service_key(name, revision),
        object_labels(name, "engine", revision),
        {
            "spec": {
                "clusterIP": "None",
                "selector": selector_labels(name, "engine", revision),
                "ports": [
                    {
                        "name": "http",
                        "port": HTTP_PORT,
                        "targetPort": "http",
                        "protocol": "TCP",
                    }
                ],
            }
        },
    )
