"""Revisions: their hash, their frozen copy in a ControllerRevision, and which ones are kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

from llmfleet.api import LLMDeployment, hash_payload
from llmfleet.planning.children.engines import engine_of
from llmfleet.planning.children.naming import (
    canonical_json,
    controller_revision_key,
    make_child,
    object_labels,
    owner_reference,
    token_name,
)
from llmfleet.planning.children.pods import TOKEN_VOLUME
from llmfleet.planning.plan import Child, ChildMode
from llmfleet.planning.snapshot import JSON, ObservedObject, OperatorSettings

HASH_LENGTH: Final = 10
DATA_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """Everything that makes a revision, as frozen when it was made."""

    hash: str
    image: str
    payload: JSON
    template: JSON
    """The PodTemplateSpec, applied verbatim ever after."""
    number: int
    """Rises by one with every revision made."""


def revision_hash(payload: JSON) -> str:
    """First 10 hex digits of the SHA-256 of the canonical JSON of ``api.hash_payload``'s answer.

    >>> revision_hash({"model": {"source": "pvc://m/x", "servedName": "m"}})
    'eea87f81fa'
    """
    return hashlib.sha256(canonical_json(payload).encode()).hexdigest()[:HASH_LENGTH]


def spec_payload(raw: JSON) -> JSON:
    """The hashed sections of a stored resource."""
    return hash_payload(raw.get("spec") or {})


def render_revision(
    deployment: LLMDeployment, raw: JSON, settings: OperatorSettings, number: int
) -> Revision:
    """Make the revision that spec asks for now; its pod template is rendered here, once."""
    payload = spec_payload(raw)
    name, engine = revision_hash(payload), engine_of(deployment)
    return Revision(
        hash=name,
        image=engine.image(deployment, settings),
        payload=payload,
        template=engine.pod_template(deployment, settings, name),
        number=number,
    )


def build_controller_revision(deployment: LLMDeployment, revision: Revision) -> Child:
    """The immutable copy: created, never applied again."""
    name = deployment.metadata.name
    content = {"schema": DATA_SCHEMA, **revision_body(revision)}
    child = make_child(
        deployment,
        controller_revision_key(name, revision.hash),
        object_labels(name, "engine", revision.hash),
        {"data": content, "revision": revision.number},
        mode=ChildMode.CREATE_ONCE,
    )
    return replace(child, urgent=True)


def return_owner(deployment: LLMDeployment, found: ObservedObject) -> Child:
    """A ControllerRevision that has lost its owner, with it and else as it is.

    Its data is immutable byte for byte, which no apply keeps.
    """
    meta = found.body["metadata"]
    owners = [*(meta.get("ownerReferences") or []), owner_reference(deployment)]
    body = {**found.body, "metadata": {**meta, "ownerReferences": owners}}
    return Child(key=found.key, mode=ChildMode.ADOPT, body=body)


def revision_body(revision: Revision) -> JSON:
    """Payload, image and template, as ControllerRevision and memory keep them."""
    return {
        "payload": revision.payload,
        "image": revision.image,
        "template": revision.template,
    }


def adopt_revision(deployment: LLMDeployment, revision: Revision) -> Revision:
    """A revision from before the resource was deleted or restored, for the one that has come back.

    Its pods mounted the engine token of the resource of then, whose Secret went with it; they get
    the present one's, and keep everything else.
    """
    spec = revision.template.get("spec") or {}
    name = token_name(deployment)
    volumes = [
        {**volume, "secret": {**volume["secret"], "secretName": name}}
        if volume.get("name") == TOKEN_VOLUME
        else volume
        for volume in spec.get("volumes") or []
    ]
    if volumes == (spec.get("volumes") or []):
        return revision
    return replace(revision, template={**revision.template, "spec": {**spec, "volumes": volumes}})
