"""The pod of an engine, as far as it is the same for every engine: docs/contract.md, Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from llmfleet.api import LLMDeployment, PodTemplate
from llmfleet.planning.children.naming import (
    RUNTIME_CONFIG_ANNOTATION,
    canonical_json,
    object_labels,
    token_name,
)
from llmfleet.planning.children.pods import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    TOKEN_PATH,
    TOKEN_VOLUME,
    scrape_annotations,
)
from llmfleet.planning.snapshot import JSON

HTTP_PORT: Final = 8000
HEALTH_PORT: Final = 8081
CACHE_PATH: Final = "/var/cache/llmfleet"
STARTUP_FAILURES: Final = 3
STARTUP_SECONDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an engine adds to the pod; each list comes after what all engines have."""

    image: str
    config: JSON
    """The runtime's configuration file."""
    env: Sequence[JSON] = ()
    mounts: Sequence[JSON] = ()
    volumes: Sequence[JSON] = ()


def render_pod_template(deployment: LLMDeployment, revision: str, parts: Parts) -> JSON:
    """Render the PodTemplateSpec of a revision.

    Args:
        deployment: whose revision it is; its ``podTemplate`` comes last everywhere.
        revision: hash of the revision.
        parts: the engine's own.
    """
    spec, extra = deployment.spec, deployment.spec.pod_template
    pod: JSON = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": spec.drain.timeout_seconds,
        "securityContext": POD_SECURITY,
        "containers": [_container(deployment, parts)],
        "volumes": _volumes(deployment, parts),
    }
    chosen = _dump(extra)
    for key in (
        "nodeSelector",
        "tolerations",
        "affinity",
        "priorityClassName",
        "runtimeClassName",
    ):
        if chosen.get(key):
            pod[key] = chosen[key]
    return {
        "metadata": {
            "labels": {
                **extra.metadata.labels,
                **object_labels(deployment.metadata.name, "engine", revision),
            },
            "annotations": {
                **extra.metadata.annotations,
                **scrape_annotations(HEALTH_PORT),
                RUNTIME_CONFIG_ANNOTATION: canonical_json(parts.config),
            },
        },
        "spec": pod,
    }


def _container(deployment: LLMDeployment, parts: Parts) -> JSON:
    extra = _dump(deployment.spec.pod_template)
    return {
        "name": "engine",
        "image": parts.image,
        "imagePullPolicy": "IfNotPresent",
        "env": [*_own_env(), *parts.env, *extra.get("env", [])],
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
        ],
        "startupProbe": {
            **_probe("/health"),
            "periodSeconds": STARTUP_SECONDS,
            "failureThreshold": STARTUP_FAILURES * 4,
        },
        "livenessProbe": {**_probe("/health"), "periodSeconds": 10, "failureThreshold": 3},
        "readinessProbe": {**_probe("/ready"), "periodSeconds": 1, "failureThreshold": 1},
        "resources": _resources(deployment),
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "llmfleet-config", "mountPath": "/etc/llmfleet", "readOnly": True},
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_PATH, "readOnly": True},
            {"name": "llmfleet-tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
            {"name": "llmfleet-shm", "mountPath": "/dev/shm"},  # noqa: S108 - in the container
            {"name": "llmfleet-cache", "mountPath": CACHE_PATH},
            *(
                {"name": volume, "mountPath": f"/models/{claim}", "readOnly": True}
                for volume, claim in _claim_volumes(deployment.spec.claims)
            ),
            *parts.mounts,
            *extra.get("mounts", []),
        ],
    }


def _probe(path: str) -> JSON:
    return {
        "httpGet": {"path": path, "port": "health", "scheme": "HTTP"},
        # Draining answers 503 at once; a busy machine that answers late is not a pod to remove.
        "timeoutSeconds": 5,
    }


def _own_env() -> list[JSON]:
    def of_pod(name: str, path: str) -> JSON:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    return [
        of_pod("LLMFLEET_POD_NAME", "metadata.name"),
        of_pod("LLMFLEET_POD_IP", "status.podIP"),
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - in the container
    ]


def _resources(deployment: LLMDeployment) -> JSON:
    chosen = _dump(deployment.spec.pod_template).get("resources", {})
    requests, limits = dict(chosen.get("requests", {})), dict(chosen.get("limits", {}))
    accelerator = deployment.spec.accelerator
    if accelerator.resource_name is not None:
        requests[accelerator.resource_name] = str(accelerator.resource_count)
        limits[accelerator.resource_name] = str(accelerator.resource_count)
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _claim_volumes(claims: tuple[str, ...]) -> list[tuple[str, str]]:
    # Claim names may be longer than a volume name and contain dots, so volumes are numbered.
    return [(f"llmfleet-claim-{index}", claim) for index, claim in enumerate(claims)]


def _volumes(deployment: LLMDeployment, parts: Parts) -> list[JSON]:
    annotation = f"metadata.annotations['{RUNTIME_CONFIG_ANNOTATION}']"
    config = {"path": "runtime.json", "fieldRef": {"fieldPath": annotation}}
    return [
        {"name": "llmfleet-config", "downwardAPI": {"items": [config]}},
        {"name": TOKEN_VOLUME, "secret": {"secretName": token_name(deployment)}},
        {"name": "llmfleet-tmp", "emptyDir": {}},
        {"name": "llmfleet-shm", "emptyDir": {"medium": "Memory"}},
        {"name": "llmfleet-cache", "emptyDir": {}},
        *(
            {"name": volume, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
            for volume, claim in _claim_volumes(deployment.spec.claims)
        ),
        *parts.volumes,
        *_dump(deployment.spec.pod_template).get("volumes", []),
    ]


def _dump(template: PodTemplate) -> JSON:
    dumped: JSON = template.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_defaults=True
    )
    return dumped
