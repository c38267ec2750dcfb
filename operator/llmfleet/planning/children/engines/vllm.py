"""Manifests of an engine revision: pod template, Deployment, headless Service, disruption budget.

The pod template is rendered when a revision is made and kept verbatim after that; whatever is
changed here reaches only new revisions (docs/contract.md, Runtime).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from llmfleet.api import LLMDeployment, PodTemplate
from llmfleet.planning.children.naming import (
    POLICY,
    RUNTIME_CONFIG_ANNOTATION,
    canonical_json,
    deployment_key,
    make_child,
    object_labels,
    selector_labels,
    service_key,
    token_name,
)
from llmfleet.planning.plan import Child
from llmfleet.planning.snapshot import JSON, ObjectKey, OperatorSettings

RUN_AS: Final = 65532
HTTP_PORT: Final = 8000
HEALTH_PORT: Final = 8081
CACHE_PATH: Final = "/var/cache/llmfleet"
TOKEN_VOLUME: Final = "llmfleet-token"  # noqa: S105 - a volume
TOKEN_PATH: Final = "/var/run/llmfleet/token"  # noqa: S105 - a directory
CHAT_TEMPLATE_PATH: Final = "/var/run/llmfleet/chat-template"
STARTUP_FAILURES: Final = 3
STARTUP_SECONDS: Final = 5

POD_SECURITY: Final[JSON] = {
    "runAsNonRoot": True,
    "runAsUser": RUN_AS,
    "runAsGroup": RUN_AS,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Pod Security Standard "restricted"."""

CONTAINER_SECURITY: Final[JSON] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
}


def engine_image(deployment: LLMDeployment, settings: OperatorSettings) -> str:
    """The runtime image of a revision made now: the user's, or the bundled one per device."""
    if deployment.spec.engine.image:
        return deployment.spec.engine.image
    return (
        settings.runtime_image_cpu
        if deployment.spec.accelerator.is_cpu
        else settings.runtime_image_gpu
    )


def runtime_config(deployment: LLMDeployment, revision: str) -> JSON:
    """The runtime's configuration file (docs/contract.md, Runtime)."""
    spec = deployment.spec
    accelerator: JSON = (
        {"type": "cpu"}
        if spec.accelerator.is_cpu
        else {
            "resource": spec.accelerator.resource_name,
            "count": spec.accelerator.resource_count,
        }
    )
    return {
        "schema": 1,
        "deployment": deployment.metadata.name,
        "namespace": deployment.metadata.namespace,
        "revision": revision,
        "model": spec.model.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"secret_ref"}
        ),
        "engine": spec.engine.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"image"}
        ),
        "accelerator": accelerator,
        "drainTimeoutSeconds": spec.drain.timeout_seconds,
    }


def build_pod_template(
    deployment: LLMDeployment, settings: OperatorSettings, revision: str
) -> JSON:
    """Render the PodTemplateSpec of a revision."""
    spec, extra = deployment.spec, deployment.spec.pod_template
    pod: JSON = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": spec.drain.timeout_seconds,
        "securityContext": POD_SECURITY,
        "containers": [_container(deployment, settings)],
        "volumes": _volumes(deployment),
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
                RUNTIME_CONFIG_ANNOTATION: canonical_json(runtime_config(deployment, revision)),
            },
        },
        "spec": pod,
    }


def scrape_annotations(port: int) -> dict[str, str]:
    """Annotations that let Prometheus find a metrics port."""
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port),
        "prometheus.io/path": "/metrics",
    }


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


def build_engine_budget(deployment: LLMDeployment) -> Child:
    """One engine pod at a time may be evicted; unhealthy ones always."""
    return build_budget(deployment, f"{deployment.metadata.name}-engine", "engine")


def build_budget(deployment: LLMDeployment, name: str, component: str) -> Child:
    """A PodDisruptionBudget over all pods of a component."""
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


def _container(deployment: LLMDeployment, settings: OperatorSettings) -> JSON:
    spec, extra = deployment.spec, _dump(deployment.spec.pod_template)
    return {
        "name": "engine",
        "image": engine_image(deployment, settings),
        "imagePullPolicy": "IfNotPresent",
        "env": [*_own_env(deployment), *extra.get("env", [])],
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
                for volume, claim in _claim_volumes(spec.claims)
            ),
            *(
                {"name": one["name"], "mountPath": CHAT_TEMPLATE_PATH, "readOnly": True}
                for one in _chat_template_volume(deployment)
            ),
            *extra.get("mounts", []),
        ],
    }


def _probe(path: str) -> JSON:
    return {
        "httpGet": {"path": path, "port": "health", "scheme": "HTTP"},
        # Draining answers 503 at once; a busy machine that answers late is not a pod to remove.
        "timeoutSeconds": 5,
    }


def _own_env(deployment: LLMDeployment) -> list[JSON]:
    def of_pod(name: str, path: str) -> JSON:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    env: list[JSON] = [
        of_pod("LLMFLEET_POD_NAME", "metadata.name"),
        of_pod("LLMFLEET_POD_IP", "status.podIP"),
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - in the container
        {"name": "HF_HOME", "value": f"{CACHE_PATH}/hf"},
    ]
    secret = token_secret_of_model(deployment)
    if secret:
        reference = {"name": secret, "key": "token"}
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    return env


def token_secret_of_model(deployment: LLMDeployment) -> str | None:
    """Secret with the download token: the model's, else the draft's, else an adapter's."""
    engine = deployment.spec.engine
    draft = engine.speculative_decoding.draft_model if engine.speculative_decoding else None
    references = (
        deployment.spec.model.secret_ref,
        draft.secret_ref if draft else None,
        *(adapter.secret_ref for adapter in engine.lora.adapters),
    )
    return next((each.name for each in references if each), None)


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


def _volumes(deployment: LLMDeployment) -> list[JSON]:
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
        *_chat_template_volume(deployment),
        *_dump(deployment.spec.pod_template).get("volumes", []),
    ]


def _chat_template_volume(deployment: LLMDeployment) -> list[JSON]:
    """The ConfigMap's key as a file of that name; nothing without ``engine.chatTemplate``."""
    wanted = deployment.spec.engine.chat_template.config_map_ref
    if wanted is None:
        return []
    items = [{"key": wanted.key, "path": wanted.key}]
    return [{"name": "llmfleet-chat-template", "configMap": {"name": wanted.name, "items": items}}]


def _dump(template: PodTemplate) -> JSON:
    dumped: JSON = template.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_defaults=True
    )
    return dumped
