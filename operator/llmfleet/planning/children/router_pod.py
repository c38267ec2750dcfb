"""Router pods: Envoy, and the agent that tells it what to serve, in two containers."""

from __future__ import annotations

from typing import Final

from llmfleet.api import LLMDeployment
from llmfleet.planning.children.naming import (
    object_labels,
    router_name,
    selector_labels,
    token_name,
)
from llmfleet.planning.children.pods import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    TOKEN_PATH,
    TOKEN_VOLUME,
    scrape_annotations,
)
from llmfleet.planning.snapshot import JSON, OperatorSettings

HTTP_PORT: Final = 8080
PREVIEW_PORT: Final = 8081
AGENT_PORT: Final = 9090
GRACE_MARGIN_SECONDS: Final = 30
"""Beyond drainTimeout, for the processes to end: Envoy within 5 s, the agent when the operator has
read what the last requests came to, 8 s later at most."""
AGENT_GRACE_SECONDS: Final = 10
API_VOLUME: Final = "llmfleet-api"
API_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_API_ACCESS: Final[list[JSON]] = [
    # Just over an hour, as the API server's own: the kubelet renews it in time.
    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
    {
        "configMap": {
            "name": "kube-root-ca.crt",
            "items": [{"key": "ca.crt", "path": "ca.crt"}],
        }
    },
]
"""What the agent speaks to the API server with. Envoy, which reads what clients send, has none."""
ENVOY_RESOURCES: Final[JSON] = {
    "requests": {"cpu": "80m", "memory": "192Mi"},
    "limits": {"memory": "1Gi"},
}


def build_pod_template(deployment: LLMDeployment, settings: OperatorSettings) -> JSON:
    """The PodTemplateSpec; ``spec.router.podTemplate`` says where pods run and what Envoy gets."""
    name, chosen = deployment.metadata.name, _chosen(deployment)
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector_labels(name, "router")},
    }
    drain_seconds = deployment.spec.router.drain_timeout_seconds
    pod: JSON = {
        "serviceAccountName": router_name(name),
        "automountServiceAccountToken": False,  # which would be for both containers
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain_seconds + GRACE_MARGIN_SECONDS,
        "securityContext": POD_SECURITY,
        "topologySpreadConstraints": [spread],
        "containers": [_envoy(deployment, settings), _agent(deployment, settings)],
        "volumes": [
            {"name": TOKEN_VOLUME, "secret": {"secretName": token_name(deployment)}},
            {"name": "llmfleet-tmp", "emptyDir": {}},
            {"name": "llmfleet-xds", "emptyDir": {}},
            {"name": API_VOLUME, "projected": {"sources": _API_ACCESS}},
        ],
    }
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        if chosen.get(key):
            pod[key] = chosen[key]
    metadata = chosen.get("metadata", {})
    annotations = {
        **metadata.get("annotations", {}),
        **scrape_annotations(AGENT_PORT),
        # The requests that failed are in its log.
        "kubectl.kubernetes.io/default-container": "envoy",
    }
    labels = {**metadata.get("labels", {}), **object_labels(name, "router")}
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod}


def _chosen(deployment: LLMDeployment) -> JSON:
    template = deployment.spec.router.pod_template
    if template is None:
        return {}
    dumped: JSON = template.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_defaults=True
    )
    return dumped


def _envoy_resources(deployment: LLMDeployment) -> JSON:
    # A resource that is named has no default beside it: a request above the default limit, or a
    # limit below the default request, would be refused.
    chosen = _chosen(deployment).get("resources", {})
    named = {name for side in chosen.values() for name in side}
    merged = {
        side: {n: v for n, v in own.items() if n not in named} | chosen.get(side, {})
        for side, own in ENVOY_RESOURCES.items()
    }
    return {side: values for side, values in merged.items() if values}


def _envoy(deployment: LLMDeployment, settings: OperatorSettings) -> JSON:
    """Carries the requests, with nobody's help but for the agent's files.

    It is ready when Envoy listens; whether there is something to serve is the agent's to say. The
    kubelet only connects: an answer would come late from an Envoy that has much to do, and its
    requests would then be the other routers'. There is no liveness probe, as one that fails cuts
    every stream; the container ends with Envoy.
    """
    return {
        **_container("envoy", deployment, settings),
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "preview", "containerPort": PREVIEW_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": {
            "tcpSocket": {"port": "http"},
            "periodSeconds": 1,
            "failureThreshold": 2,
            "timeoutSeconds": 1,
        },
        "resources": _envoy_resources(deployment),
        "volumeMounts": [
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_PATH, "readOnly": True},
            *_shared_mounts(),
        ],
    }


def _agent(deployment: LLMDeployment, settings: OperatorSettings) -> JSON:
    """Tells Envoy what to serve, and the operator what is served; no request passes through it."""
    return {
        **_container("agent", deployment, settings),
        "ports": [{"name": "agent", "containerPort": AGENT_PORT, "protocol": "TCP"}],
        # A node that has much to do starts it slowly: killed for that, it would start again.
        "startupProbe": {**_health_probe(), "periodSeconds": 1, "failureThreshold": 300},
        "livenessProbe": {**_health_probe(), "periodSeconds": 10, "failureThreshold": 3},
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": "agent", "scheme": "HTTP"},
            "periodSeconds": 1,
            "failureThreshold": 2,
            "timeoutSeconds": 1,
        },
        "resources": {
            "requests": {"cpu": "20m", "memory": "64Mi"},
            "limits": {"memory": "256Mi"},
        },
        "volumeMounts": [
            {"name": API_VOLUME, "mountPath": API_PATH, "readOnly": True},
            *_shared_mounts(),
        ],
    }


def _health_probe() -> JSON:
    return {
        "httpGet": {"path": "/health", "port": "agent", "scheme": "HTTP"},
        "timeoutSeconds": 3,
        # Not the pod's, which is for streams: an agent that hangs has none.
        "terminationGracePeriodSeconds": AGENT_GRACE_SECONDS,
    }


def _container(part: str, deployment: LLMDeployment, settings: OperatorSettings) -> JSON:
    """What both have in common: one image, which is told its part."""
    return {
        "name": part,
        "image": settings.router_image,
        "imagePullPolicy": "IfNotPresent",
        "args": [part],
        "env": _env(deployment),
        "securityContext": {**CONTAINER_SECURITY},
    }


def _shared_mounts() -> list[JSON]:
    # What the agent writes Envoy reads, and the ledger that Envoy writes the agent reads.
    return [
        {"name": "llmfleet-tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
        {"name": "llmfleet-xds", "mountPath": "/var/run/llmfleet/xds"},
    ]


def _env(deployment: LLMDeployment) -> list[JSON]:
    router = deployment.spec.router
    values = {
        "LLMFLEET_NAMESPACE": deployment.metadata.namespace,
        "LLMFLEET_NAME": deployment.metadata.name,
        "LLMFLEET_POLICY": router.policy,
        "LLMFLEET_PREFIX_BYTES": str(router.prefix_bytes),
        "LLMFLEET_BODY_LIMIT_BYTES": str(router.body_limit_bytes),
        "LLMFLEET_DRAIN_TIMEOUT_SECONDS": str(router.drain_timeout_seconds),
        "LLMFLEET_FIRST_TOKEN_TIMEOUT_SECONDS": str(
            deployment.spec.rollout.analysis.first_token_timeout_seconds
        ),
    }
    fields = {"LLMFLEET_POD_NAME": "metadata.name", "LLMFLEET_POD_UID": "metadata.uid"}
    return [
        *({"name": name, "value": value} for name, value in values.items()),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in fields.items()
        ),
    ]
