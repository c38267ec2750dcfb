"""Everything observed about one LLMDeployment, gathered once per reconcile.

Unknown is a value of its own (``None`` or an absent entry), never zero: a decision that needs an
unknown fact holds what is, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from llmfleet.api import LLMDeployment
from llmfleet.planning.signal import Signal

JSON = dict[str, Any]


Labels = tuple[tuple[str, str], ...]
"""Labels that something must have, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """Who besides routers and clients may connect to engine and router pods."""

    operator_namespace: str
    operator_pod_labels: Labels
    """Empty = every pod of that namespace."""
    prometheus_namespace_labels: Labels
    """Empty = every namespace."""
    prometheus_pod_labels: Labels
    """Empty = every pod of those namespaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """What the operator was started with and decisions depend on (docs/contract.md, Operator)."""

    runtime_image_gpu: str
    runtime_image_cpu: str
    router_image: str
    allow_file_sources: bool = False
    network: NetworkSettings | None = None
    """None: no NetworkPolicy is made, and those made before are removed."""
    crd_outdated: bool = False
    """The installed CRD lacks fields this operator writes: nothing may be rolled out."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ObjectKey:
    """Names one namespaced child object."""

    api_version: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedObject:
    """A child as the informer cache last saw it."""

    key: ObjectKey
    uid: str
    resource_version: str
    owner_uid: str | None
    """uid of the controlling owner reference; None when it has none."""
    deleting: bool
    body: JSON
    """The whole object, as stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """The one owner reference that says who controls an object."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedReplicaSet:
    """What leads from a pod to its Deployment."""

    uid: str
    controller: Controller | None
    """Its Deployment; None for one that somebody made by hand, or that was left behind."""
    refused: str | None
    """The API server's sentence while it refuses it pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """How a container ended, from its last (or present) terminated state."""

    exit_code: int
    reason: str
    """The kubelet's or the container runtime's word: Error, OOMKilled, StartError, Unknown …"""
    message: str
    """The termination log: the runtime's JSON (docs/contract.md, exit codes), or free text."""
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodWarning:
    """The latest Event that says why a node does not begin a pod; nothing else tells."""

    reason: str
    """The kubelet's or a controller's word: FailedMount, FailedAttachVolume …"""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """How far an engine pod's download is, as its supervisor says."""

    bytes_done: int
    bytes_total: int | None
    """None = the hub did not say."""
    moved_at: datetime
    """When the last of them came."""
    ended: bool
    """Everything is there: the engine loads it, or serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindrance:
    """What keeps a pod from being ready beside its own container.

    It is a container that somebody adds to pods (a sidecar, an init container), or a readiness
    gate. A revision knows of neither.
    """

    text: str
    failed: bool
    """It ended or cannot start; False = it takes its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPod:
    """An engine or router pod."""

    name: str
    uid: str
    component: str
    """``engine`` or ``router``."""
    revision: str | None
    """Revision hash of an engine pod."""
    phase: str
    ready: bool
    deleting: bool
    created_at: datetime
    pod_ip: str | None
    unschedulable: str | None
    """The scheduler's sentence while PodScheduled is False, else None."""
    unschedulable_since: datetime | None
    waiting_reason: str | None
    """Waiting reason of the main container: ImagePullBackOff, CrashLoopBackOff …"""
    waiting_message: str | None
    restarts: int
    last_termination: Termination | None
    running_since: datetime | None
    unready_since: datetime | None = None
    """When it lost its readiness, or was made without; None while it is ready or unknown."""
    controller: Controller | None = None
    """Its ReplicaSet; None for a pod that nobody controls."""
    node: str | None = None
    """Name of its node, once it has one."""
    node_lost: bool = False
    """Kubernetes says that its node is not ready, or evicts it from there."""
    ends_at: datetime | None = None
    """When its grace period is over; None while nobody deletes it."""
    reason: str | None = None
    """Of its phase, in the kubelet's word: Evicted, UnexpectedAdmissionError, OutOfcpu …"""
    message: str | None = None
    """The kubelet's sentence to that."""
    gates: tuple[str, ...] = ()
    """Scheduling gates that hold it back."""
    sandbox_missing_since: datetime | None = None
    """Since when its node has not made its sandbox, or its volumes before that."""
    hindrance: Hindrance | None = None
    asked: bool = True
    """What the pod itself does not tell is known as far as it can be: its node was asked for, and
    its Events or its supervisor. False = not yet, or too long ago, so nothing is concluded from the
    time it takes.
    """
    warning: PodWarning | None = None
    download: Download | None = None
    silent_since: datetime | None = None
    """Since when nobody answers for it, though its container is said to run."""
    container: str | None = None
    """Which container all this is of, where a pod has several of ours: a router's ``envoy`` or
    ``agent``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterState:
    """What one router pod says that it serves (``GET /llmfleet/state``)."""

    traffic_generation: int | None
    """None: nothing yet."""


Look = tuple[int, int]
"""Requests of one cohort, and how many of them failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCounts:
    """Requests that routers sent to one revision since the attempt's first one was served."""

    total: int
    failed: int
    """Those that ended in an error of the server, a reset, or without an answer."""
    unreached: int = 0
    """Of these, those for which no pod of the revision could be connected to."""
    looks: tuple[Look, ...] = ()
    """The same by cohort, in the order in which nearly all of each had a first token or had failed;
    the cohorts are those of the other revisions. Nothing is added to a look any more."""
    hanging: int = 0
    """Requests that it got since it last answered one, if that is too long ago while the other
    revision answered; else 0."""
    late_looks: tuple[Look, ...] = ()
    """By cohort, in the order in which all of each had ended: those that had not failed at the look
    above, and how many of them failed later (streams that were cut off)."""


NOT_COUNTED: Signal[Mapping[str, RequestCounts]] = Signal(problem="no request counts are known")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All facts of one reconcile; ``decide`` sees nothing else but ``now``."""

    settings: OperatorSettings
    deployment: LLMDeployment
    """The parsed resource; unknown keys were ignored, so hash from ``raw`` instead."""
    raw: JSON
    """The resource as stored."""
    objects: Mapping[ObjectKey, ObservedObject]
    """Children by key: those labelled as ours, and any object, whoever made it, that has the
    name of a child we would make."""
    pods: tuple[ObservedPod, ...]
    """Engine and router pods of this object, sorted by name."""
    routers: Mapping[str, Signal[RouterState]]
    """By pod name; a Ready router pod without an entry was never reached yet."""
    refusals: Mapping[ObjectKey, str] = field(default_factory=dict)
    """The API server's sentence for each child that it refused (403, 422) at the last attempt."""
    replica_sets: Mapping[str, ObservedReplicaSet] = field(default_factory=dict)
    """ReplicaSets labelled as ours, by uid."""
    requests: Signal[Mapping[str, RequestCounts]] = NOT_COUNTED
    """By revision."""
    from_event: bool = False
    """The resource is as an event brought it, not read: it may be older than what is stored."""
    routers_assumed: bool = False
    """Routers that were not asked yet are assumed to serve what the status says they confirmed."""
