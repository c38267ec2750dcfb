"""Names, labels, ownership and digests of children (docs/contract.md, Objects)."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import orjson

from llmfleet.api import API_VERSION, KIND, LLMDeployment
from llmfleet.planning.plan import Child, ChildMode
from llmfleet.planning.snapshot import JSON, ObjectKey, ObservedObject

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "llmfleet"
DEPLOYMENT_LABEL: Final = "llmfleet.dev/deployment"
COMPONENT_LABEL: Final = "llmfleet.dev/component"
REVISION_LABEL: Final = "llmfleet.dev/revision"
DIGEST_ANNOTATION: Final = "llmfleet.dev/digest"
RUNTIME_CONFIG_ANNOTATION: Final = "llmfleet.dev/runtime-config"

APPS: Final = "apps/v1"
CORE: Final = "v1"
NETWORKING: Final = "networking.k8s.io/v1"
POLICY: Final = "policy/v1"
RBAC: Final = "rbac.authorization.k8s.io/v1"


_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value: keys sorted, no spaces, UTF-8 as it is."""
    return _CANONICAL.encode(value)


def revision_name(name: str, revision: str) -> str:
    """Name of a revision's Deployment, Service and ControllerRevision."""
    return f"{name}-rev-{revision}"


def router_name(name: str) -> str:
    """Name of everything that makes the router."""
    return f"{name}-router"


def token_name(deployment: LLMDeployment) -> str:
    """Name of the engine token's Secret: a new owner uid makes a new one."""
    return f"{deployment.metadata.name}-token-{deployment.metadata.uid[:8]}"


def memory_key(name: str) -> ObjectKey:
    """The ownerless ConfigMap that outlives the resource."""
    return ObjectKey(api_version=CORE, kind="ConfigMap", name=f"{name}-llmfleet-memory")


def deployment_key(name: str, revision: str) -> ObjectKey:
    """A revision's Deployment."""
    return ObjectKey(api_version=APPS, kind="Deployment", name=revision_name(name, revision))


def router_key(name: str) -> ObjectKey:
    """The routers' Deployment."""
    return ObjectKey(api_version=APPS, kind="Deployment", name=router_name(name))


def service_key(name: str, revision: str) -> ObjectKey:
    """A revision's headless Service."""
    return ObjectKey(api_version=CORE, kind="Service", name=revision_name(name, revision))


def controller_revision_key(name: str, revision: str) -> ObjectKey:
    """A revision's ControllerRevision."""
    return ObjectKey(
        api_version=APPS, kind="ControllerRevision", name=revision_name(name, revision)
    )


def selector_labels(name: str, component: str, revision: str | None = None) -> dict[str, str]:
    """Labels that pods are selected by."""
    labels = {DEPLOYMENT_LABEL: name, COMPONENT_LABEL: component}
    return labels if revision is None else {**labels, REVISION_LABEL: revision}


def object_labels(name: str, component: str, revision: str | None = None) -> dict[str, str]:
    """Labels on an object: the selector's and whose it is."""
    return {
        MANAGED_BY_LABEL: MANAGED_BY,
        **selector_labels(name, component, revision),
    }


def owner_reference(deployment: LLMDeployment) -> JSON:
    """Controller reference without blockOwnerDeletion, so that no finalizer right is needed."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": deployment.metadata.name,
        "uid": deployment.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def make_child(
    deployment: LLMDeployment,
    key: ObjectKey,
    labels: dict[str, str],
    content: JSON,
    *,
    mode: ChildMode = ChildMode.APPLY,
    owned: bool = True,
) -> Child:
    """A child with the metadata all children have; ``content`` is everything else."""
    metadata: JSON = {
        "name": key.name,
        "namespace": deployment.metadata.namespace,
        "labels": labels,
    }
    if owned:
        metadata["ownerReferences"] = [owner_reference(deployment)]
    body: JSON = {
        "apiVersion": key.api_version,
        "kind": key.kind,
        "metadata": metadata,
        **content,
    }
    # Thousands of them are made when an operator starts: not with canonical_json.
    digest = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
    body["metadata"] = {**metadata, "annotations": {DIGEST_ANNOTATION: digest}}
    return Child(key=key, mode=mode, body=body)


def is_ours(deployment: LLMDeployment, found: ObservedObject) -> bool:
    """Whether we may touch it: controlled by this uid, our ownerless memory, or left by its owner.

    Backup tools strip owner references. What carries all of our labels and has no controller gets
    it back (``is_orphan``); what it holds is then checked like that of any other child.
    """
    if found.owner_uid is not None:
        return found.owner_uid == deployment.metadata.uid
    labels = found.body.get("metadata", {}).get("labels") or {}
    if labels.get(DEPLOYMENT_LABEL) != deployment.metadata.name:
        return False
    return found.key == memory_key(deployment.metadata.name) or is_orphan(found)


def is_orphan(found: ObservedObject) -> bool:
    """Whether an object with this label has lost the controller that its like always have.

    Nobody else's Secret is taken over, whatever its labels: routers would show it to engines.
    """
    labels = found.body.get("metadata", {}).get("labels") or {}
    made_by_us = labels.get(MANAGED_BY_LABEL) == MANAGED_BY
    return found.owner_uid is None and made_by_us and found.key.kind != "Secret"
