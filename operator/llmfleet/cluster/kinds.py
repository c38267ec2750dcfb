"""Which kinds the operator touches, and where the API server keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmfleet.planning.snapshot import ObjectKey

GROUP: Final = "llmfleet.dev"
OWNER_LABEL: Final = "llmfleet.dev/deployment"
COMPONENT_LABEL: Final = "llmfleet.dev/component"
REVISION_LABEL: Final = "llmfleet.dev/revision"
DIGEST_ANNOTATION: Final = "llmfleet.dev/digest"
FIELD_MANAGER: Final = "llmfleet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A namespaced kind of the API."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
        """Path of the collection (no name), object or subresource; None = all namespaces."""
        base = "/api/v1" if self.api_version == "v1" else f"/apis/{self.api_version}"
        parts = [base]
        if namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        parts.extend(part for part in (name, subresource) if part)
        return "/".join(parts)


DEPLOYMENT: Final = Kind(api_version="apps/v1", kind="Deployment", plural="deployments")
REPLICA_SET: Final = Kind(api_version="apps/v1", kind="ReplicaSet", plural="replicasets")
POD: Final = Kind(api_version="v1", kind="Pod", plural="pods")
SECRET: Final = Kind(api_version="v1", kind="Secret", plural="secrets")
LEASE: Final = Kind(api_version="coordination.k8s.io/v1", kind="Lease", plural="leases")
NODE: Final = Kind(api_version="v1", kind="Node", plural="nodes")
POD_EVENT: Final = Kind(api_version="v1", kind="Event", plural="events")
"""As the field selectors of pods' Events are known; ours are made in the newer group."""
EVENT: Final = Kind(api_version="events.k8s.io/v1", kind="Event", plural="events")
LLM_DEPLOYMENT: Final = Kind(
    api_version=f"{GROUP}/v1alpha1", kind="LLMDeployment", plural="llmdeployments"
)

CHILD_KINDS: Final[tuple[Kind, ...]] = (
    DEPLOYMENT,
    Kind(api_version="v1", kind="Service", plural="services"),
    Kind(api_version="v1", kind="ConfigMap", plural="configmaps"),
    Kind(api_version="v1", kind="ServiceAccount", plural="serviceaccounts"),
    Kind(api_version="apps/v1", kind="ControllerRevision", plural="controllerrevisions"),
    Kind(api_version="policy/v1", kind="PodDisruptionBudget", plural="poddisruptionbudgets"),
    Kind(api_version="networking.k8s.io/v1", kind="NetworkPolicy", plural="networkpolicies"),
    Kind(api_version="rbac.authorization.k8s.io/v1", kind="Role", plural="roles"),
    Kind(api_version="rbac.authorization.k8s.io/v1", kind="RoleBinding", plural="rolebindings"),
)
"""Children kept in caches. Secrets are not among them: the operator never reads one."""

_BY_NAME: Final = {
    (kind.api_version, kind.kind): kind
    for kind in (*CHILD_KINDS, REPLICA_SET, POD, SECRET, LEASE, EVENT, LLM_DEPLOYMENT)
}


def kind_of(key: ObjectKey) -> Kind:
    """The kind of a planned child.

    Raises:
        KeyError: for a kind the operator has no rights for, a mistake in planning.
    """
    try:
        return _BY_NAME[(key.api_version, key.kind)]
    except KeyError:
        raise KeyError(
            f"{key.api_version} {key.kind} is not a kind the operator writes; "
            "add it to llmfleet.cluster.kinds and to the chart's ClusterRole"
        ) from None
