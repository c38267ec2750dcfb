"""Tolerations and affinity, as Kubernetes' core/v1 spells them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmfleet.api.values import ATOMIC, ResourceModel, StringMap, Text

Strings = Annotated[tuple[Text, ...], Field(max_length=64), ATOMIC]


class Toleration(ResourceModel):
    """A node taint that engine pods tolerate."""

    key: Text | None = None
    """Key of the taint; none with operator Exists = every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """How `value` is compared; Equal when left out."""
    value: Text | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; none = all."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """Seconds a NoExecute taint is tolerated."""


class SelectorRequirement(ResourceModel):
    """One condition on a label."""

    key: Text
    """Label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How its value is compared (Gt and Lt only for nodes)."""
    values: Strings = ()
    """Values compared with."""


Requirements = Annotated[tuple[SelectorRequirement, ...], Field(max_length=32), ATOMIC]


class NodeSelectorTerm(ResourceModel):
    """Conditions a node must fulfil, all of them."""

    match_expressions: Requirements = ()
    """Conditions on labels."""
    match_fields: Requirements = ()
    """Conditions on fields, such as `metadata.name`."""


class PreferredNode(ResourceModel):
    """A wish about nodes."""

    weight: Annotated[int, Field(ge=1, le=100)]
    """How strong it is."""
    preference: NodeSelectorTerm
    """The nodes wished for."""


class NodeSelector(ResourceModel):
    """Nodes that fulfil any of the terms."""

    node_selector_terms: Annotated[
        tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=16), ATOMIC
    ]
    """Terms, of which one must hold."""


class NodeAffinity(ResourceModel):
    """Rules about nodes."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        default=None, alias="requiredDuringSchedulingIgnoredDuringExecution"
    )
    """Nodes the pods must run on."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredNode, ...], Field(max_length=16), ATOMIC
    ] = Field(default=(), alias="preferredDuringSchedulingIgnoredDuringExecution")
    """Nodes the pods would rather run on."""


class LabelSelector(ResourceModel):
    """Selects objects by label."""

    match_labels: StringMap = Field(default_factory=dict)
    """Labels and values that must be equal."""
    match_expressions: Requirements = ()
    """Further conditions."""


class PodAffinityTerm(ResourceModel):
    """Pods, and the domain that is shared with them or not."""

    label_selector: LabelSelector | None = None
    """The pods meant."""
    topology_key: Text
    """Node label whose value makes a domain, such as `kubernetes.io/hostname`."""
    namespaces: Strings = ()
    """Namespaces of those pods; none = this one."""
    namespace_selector: LabelSelector | None = None
    """Namespaces by label."""


class PreferredPods(ResourceModel):
    """A wish about neighbours."""

    weight: Annotated[int, Field(ge=1, le=100)]
    """How strong it is."""
    pod_affinity_term: PodAffinityTerm
    """The neighbours meant."""


class PodAffinity(ResourceModel):
    """Rules about neighbours."""

    required_during_scheduling_ignored_during_execution: Annotated[
        tuple[PodAffinityTerm, ...], Field(max_length=16), ATOMIC
    ] = Field(default=(), alias="requiredDuringSchedulingIgnoredDuringExecution")
    """Rules that must hold."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredPods, ...], Field(max_length=16), ATOMIC
    ] = Field(default=(), alias="preferredDuringSchedulingIgnoredDuringExecution")
    """Rules that are wished for."""


class Affinity(ResourceModel):
    """Which nodes and which neighbours, as in core/v1."""

    node_affinity: NodeAffinity | None = None
    """Rules about nodes."""
    pod_affinity: PodAffinity | None = None
    """Rules about pods to be near."""
    pod_anti_affinity: PodAffinity | None = None
    """Rules about pods to be away from."""
