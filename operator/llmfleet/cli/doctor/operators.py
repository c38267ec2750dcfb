"""The operators of a cluster, as their Deployments and Leases show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from llmfleet.cli.access import OPERATOR_NAMESPACE
from llmfleet.cli.commands import Commands
from llmfleet.cli.doctor.asking import JSON, Api
from llmfleet.cli.doctor.finding import UnknownError
from llmfleet.cli.leading import LEASE

COMPONENT: Final = "app.kubernetes.io/component=operator"
VERSION_LABEL: Final = "app.kubernetes.io/version"
RELEASE_LABEL: Final = "app.kubernetes.io/instance"
MARK: Final = "LLMFLEET_ROUTER_IMAGE"
"""Of the environment of every operator, and of nothing else."""
ELSEWHERE: Final = (
    "ask somebody who may list Deployments, or set LLMFLEET_OPERATOR_NAMESPACE to the operator's"
    " namespace"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One installation."""

    namespace: str
    name: str
    """Of its Deployment."""
    release: str
    account: str
    """Of its pods."""
    version: str
    wanted: int
    ready: int
    labels: Mapping[str, str]
    """Of its Deployment, and of the Service for its metrics."""
    selector: Mapping[str, str]
    """Of its pods."""
    environment: Mapping[str, str | None]
    """None: from a Secret or the like, so nobody can tell here."""

    @property
    def place(self) -> str:
        """Where it is, for sentences."""
        return f"{self.namespace}/{self.name}"

    @property
    def watched(self) -> tuple[str, ...]:
        """The namespaces that it serves; empty = all."""
        names = (self.environment.get("LLMFLEET_WATCH_NAMESPACES") or "").split(",")
        return tuple(sorted({name.strip() for name in names} - {""}))

    def serves(self, namespace: str) -> bool:
        """Whether LLMDeployments of a namespace are this operator's."""
        return not self.watched or namespace in self.watched

    def setting(self, name: str) -> str:
        """A variable of its environment; "" if it is not set.

        Raises:
            UnknownError: it comes from a Secret or the like.
        """
        value = self.environment.get(name, "")
        if value is None:
            raise UnknownError(f"{name} of {self.place} is not a plain value")
        return value


class Installation:
    """What is asked for once, when a check first needs it."""

    def __init__(self, api: Api, namespace: str, commands: Commands) -> None:
        self.api = api
        self.namespace = namespace
        """That the user works in."""
        self.commands = commands
        self._pods: dict[str, list[JSON]] = {}

    @cached_property
    def operators(self) -> tuple[Operator, ...]:
        """Every operator that may be seen.

        Raises:
            UnknownError: Deployments may not be listed.
        """
        kind = "/apis/apps/v1/{}deployments"
        found = self._everywhere("list Deployments", kind, labelSelector=COMPONENT)
        read = (_read_operator(each) for each in found)
        return tuple(each for each in read if each is not None)

    @cached_property
    def leases(self) -> list[JSON]:
        """The operators' Leases.

        Raises:
            UnknownError: they may not be read.
        """
        try:
            path = "/apis/coordination.k8s.io/v1/leases"
            found = self.api.list("list Leases", path, fieldSelector=f"metadata.name={LEASE}")
        except UnknownError:
            where = f"{OPERATOR_NAMESPACE}/leases/{LEASE}"
            what = f"read the Lease {OPERATOR_NAMESPACE}/{LEASE}"
            path = f"/apis/coordination.k8s.io/v1/namespaces/{where}"
            try:
                one = self.api.get(what, path)
            except UnknownError as error:
                raise UnknownError(str(error), ELSEWHERE) from error
            found = [] if one is None else [one]
        return found or []

    def pods(self, operator: Operator) -> list[JSON]:
        """An operator's pods.

        Raises:
            UnknownError: they may not be listed.
        """
        if operator.place not in self._pods:
            selector = ",".join(f"{key}={value}" for key, value in operator.selector.items())
            path = f"/api/v1/namespaces/{operator.namespace}/pods"
            what = f"list pods in {operator.namespace}"
            self._pods[operator.place] = self.api.list(what, path, labelSelector=selector) or []
        return self._pods[operator.place]

    def kubectl(self, namespace: str, *words: str) -> str:
        """A command of kubectl's own, for a namespace."""
        return replace(self.commands, namespace=namespace).kubectl(*words)

    def _everywhere(self, what: str, path: str, **query: str) -> list[JSON]:
        """Of all namespaces, or of the operator's where that is not allowed."""
        try:
            return self.api.list(f"{what} of all namespaces", path.format(""), **query) or []
        except UnknownError:
            where = f"{what} in {OPERATOR_NAMESPACE}"
            one = path.format(f"namespaces/{OPERATOR_NAMESPACE}/")
            try:
                return self.api.list(where, one, **query) or []
            except UnknownError as error:
                raise UnknownError(str(error), ELSEWHERE) from error


def holder_pod(installation: Installation, lease: JSON) -> JSON | None:
    """The pod that holds a Lease, if it may be seen."""
    namespace = (lease.get("metadata") or {}).get("namespace")
    holder = (lease.get("spec") or {}).get("holderIdentity")
    try:
        for operator in installation.operators:
            if operator.namespace == namespace:
                for pod in installation.pods(operator):
                    if pod["metadata"].get("uid") == holder:
                        return pod
    except UnknownError:
        return None
    return None


def _read_operator(deployment: JSON) -> Operator | None:
    """An operator; None for a Deployment that is something else's."""
    meta, spec = deployment["metadata"], deployment.get("spec") or {}
    pod: JSON = ((spec.get("template") or {}).get("spec")) or {}
    for container in pod.get("containers") or []:
        environment: dict[str, str | None] = {
            each["name"]: None if "valueFrom" in each else str(each.get("value", ""))
            for each in container.get("env") or []
        }
        if MARK in environment:
            break
    else:
        return None
    labels: dict[str, Any] = meta.get("labels") or {}
    return Operator(
        namespace=meta["namespace"],
        name=meta["name"],
        release=labels.get(RELEASE_LABEL, meta["name"]),
        account=pod.get("serviceAccountName") or "default",
        version=labels.get(VERSION_LABEL, ""),
        wanted=spec.get("replicas", 1),
        ready=(deployment.get("status") or {}).get("readyReplicas") or 0,
        labels=labels,
        selector=(spec.get("selector") or {}).get("matchLabels") or {},
        environment=environment,
    )
