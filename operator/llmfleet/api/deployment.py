"""The resource itself, and how a stored object is parsed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from llmfleet.api.spec import LLMDeploymentSpec
from llmfleet.api.status import LLMDeploymentStatus
from llmfleet.api.text import clean_tree
from llmfleet.api.values import Cel, ResourceModel, rules

GROUP = "llmfleet.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "LLMDeployment"
PLURAL = "llmdeployments"
SINGULAR = "llmdeployment"
SHORT_NAME = "llmdep"
SCHEMA_ANNOTATION = f"{GROUP}/schema"
"""On the CRD: version of its schema, compared by operators (design: versions that differ)."""
CRD_SCHEMA = 1
"""Version of the schema that this package generates."""


class ObjectMeta(ResourceModel):
    """The part of the metadata that decisions read."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class LLMDeployment(ResourceModel):
    """A language model served by a fleet of engine pods behind one stable address."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "self.metadata.name.size() <= 40",
                "metadata.name must have at most 40 characters, since the names of its children"
                " are made from it: shorten it",
            ),
            Cel(
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "metadata.name must be a DNS label that starts with a letter (lower-case letters,"
                " digits and '-'), since it becomes the name of a Service: rename it",
            ),
        )
    )

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: ObjectMeta
    spec: LLMDeploymentSpec
    """What shall be served, on what, and how changes are rolled out."""
    status: LLMDeploymentStatus = Field(default_factory=LLMDeploymentStatus)
    """What is served, what was wanted, what was decided, and what happens next."""

    @property
    def url(self) -> str:
        """The stable address inside the cluster."""
        return f"http://{self.metadata.name}.{self.metadata.namespace}.svc"

    @property
    def preview_url(self) -> str | None:
        """The address of a blue-green rollout's new set; None with other strategies."""
        if self.spec.rollout.strategy != "BlueGreen":
            return None
        return f"http://{self.metadata.name}-preview.{self.metadata.namespace}.svc"


def parse(raw: Mapping[str, Any]) -> LLMDeployment:
    """Return the parsed resource; keys the models do not know are ignored.

    Its status and annotations are cleaned: they hold words of others, are shown, and are written
    again. Spec is taken as it is, since pods get it so.

    Raises:
        pydantic.ValidationError: a value does not fit the models (an object that was stored
            under another CRD); its text names field and reason.
    """
    cleaned = {key: clean_tree(raw[key]) for key in ("status",) if key in raw}
    meta = raw.get("metadata")
    if isinstance(meta, Mapping) and "annotations" in meta:
        cleaned["metadata"] = {**meta, "annotations": clean_tree(meta["annotations"])}
    return LLMDeployment.model_validate({**raw, **cleaned})
