"""Manifests of the router: pods, stable address, rights, disruption budget, engine token."""

from __future__ import annotations

from typing import Final

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
from llmfleet.planning.children.pods import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    TOKEN_PATH,
    TOKEN_VOLUME,
    scrape_annotations,
)
from llmfleet.planning.plan import Child, ChildMode
from llmfleet.planning.snapshot import JSON, ObjectKey, OperatorSettings

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
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    pod: JSON = {
        "serviceAccountName": router_name(name),
        "automountServiceAccountToken": False,  # which would be for both containers
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": router.drain_timeout_seconds + GRACE_MARGIN_SECONDS,
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
    template = {
        "metadata": {
            "labels": object_labels(name, "router"),
            "annotations": {
                **scrape_annotations(AGENT_PORT),
                # The requests that failed are in its log.
                "kubectl.kubernetes.io/default-container": "envoy",
            },
        },
        "spec": pod,
    }
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
                "template": template,
            }
        },
    )


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
        "resources": {
            "requests": {"cpu": "80m", "memory": "192Mi"},
            "limits": {"memory": "1Gi"},
        },
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
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": "agent", "scheme": "HTTP"},
            "periodSeconds": 10,
            "failureThreshold": 3,
            "timeoutSeconds": 3,
            "initialDelaySeconds": 10,
            # Not the pod's, which is for streams: an agent that hangs has none.
            "terminationGracePeriodSeconds": AGENT_GRACE_SECONDS,
        },
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
