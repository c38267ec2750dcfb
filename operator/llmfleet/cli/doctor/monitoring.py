"""Whether Prometheus can come by the series of operators, engines and routers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from llmfleet.cli.doctor.asking import JSON
from llmfleet.cli.doctor.finding import Finding, UnknownError, chart_value, missing, ok, unknown
from llmfleet.cli.doctor.operators import Installation, Operator
from llmfleet.cli.doctor.selectors import selects

MONITORING: Final = "/apis/monitoring.coreos.com/v1"
"""Of the Prometheus operator."""
ENGINE_LABELS: Final = {
    "app.kubernetes.io/managed-by": "llmfleet",
    "llmfleet.dev/component": "engine",
}
"""Of every engine pod (docs/contract.md)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two kinds of scrape configuration."""

    name: str
    plural: str
    selector: str
    """Field of a Prometheus that selects such objects; with ``Namespace`` in it, their places."""
    namespaces: str
    value: str
    """Of the chart."""
    what: str


SERVICE_MONITOR: Final = Kind(
    "ServiceMonitor", "servicemonitors", "serviceMonitorSelector",
    "serviceMonitorNamespaceSelector", "monitoring.serviceMonitor", "the operator",
)  # fmt: skip
POD_MONITOR: Final = Kind(
    "PodMonitor", "podmonitors", "podMonitorSelector",
    "podMonitorNamespaceSelector", "monitoring.podMonitor", "engine and router pods",
)  # fmt: skip


def check_scraping(installation: Installation) -> Iterator[Finding]:
    """Whether somebody is told to scrape, and does as told."""
    if not installation.operators:
        return
    if installation.api.get("see what kinds there are", MONITORING) is None:
        yield ok(
            "scrape",
            "the Prometheus operator's kinds are not installed; all pods carry the annotations"
            " prometheus.io/scrape, port and path for a Prometheus that goes by them",
        )
        return
    for operator in installation.operators:
        for kind in (SERVICE_MONITOR, POD_MONITOR):
            try:
                yield _check_kind(installation, operator, kind)
            except UnknownError as error:
                yield unknown("scrape", error)


def check_scrape_network(installation: Installation) -> Iterator[Finding]:
    """Whether the NetworkPolicies let in a Prometheus that exists."""
    for operator in installation.operators:
        if operator.setting("LLMFLEET_NETWORK_POLICIES") == "false":
            yield ok("scrape-network", f"{operator.place} makes no NetworkPolicies")
            continue
        labels = operator.setting("LLMFLEET_PROMETHEUS_NAMESPACE_LABELS")
        if not labels:
            yield ok("scrape-network", "a Prometheus of any namespace may scrape")
            continue
        path = "/api/v1/namespaces"
        if installation.api.list("list namespaces", path, labelSelector=labels):
            yield ok("scrape-network", f"a Prometheus of the namespace {labels} may scrape")
        elif _wants_prometheus(operator):
            yield missing(
                "scrape-network",
                f"NetworkPolicies let only a namespace with {labels} scrape, and there is none",
                chart_value("networkPolicies.prometheus.namespaceLabels", "those of Prometheus'"),
            )
        else:
            yield ok(
                "scrape-network",
                f"no namespace has {labels}, the only ones that may scrape; none is asked for",
            )


def _wants_prometheus(operator: Operator) -> bool:
    return bool(operator.environment.get("LLMFLEET_PROMETHEUS_URL", ""))


def _check_kind(installation: Installation, operator: Operator, kind: Kind) -> Finding:
    what = f"list {kind.name}s"
    found = installation.api.list(f"{what} of all namespaces", f"{MONITORING}/{kind.plural}") or []
    ours = [each for each in found if _scrapes(each, kind, operator)]
    if not ours:
        text = f"no {kind.name} tells the Prometheus operator to scrape {kind.what}"
        return missing("scrape", text, chart_value(f"{kind.value}.enabled", "true"))
    names = ", ".join(_place(each) for each in ours)
    path = f"{MONITORING}/prometheuses"
    servers = installation.api.list("list Prometheuses of all namespaces", path) or []
    if not servers:
        raise UnknownError(f"there is no Prometheus that {names} could be for")
    if any(_takes(installation, server, each, kind) for server in servers for each in ours):
        return ok("scrape", f"{names} has Prometheus scrape {kind.what}")
    spec = servers[0].get("spec") or {}
    labels: Mapping[str, str] = (spec.get(kind.selector) or {}).get("matchLabels") or {}
    wants = " ".join(f"{key}={value}" for key, value in labels.items())
    values = [
        (f"{kind.value}.labels." + key.replace(".", r"\."), value) for key, value in labels.items()
    ]
    return missing(
        "scrape",
        f"no Prometheus selects {names}: {_place(servers[0])} wants"
        f" {wants or 'other labels, or another namespace'}",
        "; ".join(chart_value(*each) for each in values)
        or f"change {kind.selector} or {kind.namespaces} of {_place(servers[0])}",
    )


def _scrapes(monitor: JSON, kind: Kind, operator: Operator) -> bool:
    """Whether a monitor selects the operator's Service, or engine pods, in any namespace."""
    spec = monitor.get("spec") or {}
    labels = ENGINE_LABELS if kind is POD_MONITOR else operator.labels
    if not selects(spec.get("selector") or {}, labels):
        return False
    if kind is POD_MONITOR:
        return True
    places = spec.get("namespaceSelector") or {}
    own = monitor["metadata"]["namespace"] == operator.namespace and not places.get("matchNames")
    return bool(places.get("any")) or own or operator.namespace in (places.get("matchNames") or ())


def _takes(installation: Installation, server: JSON, monitor: JSON, kind: Kind) -> bool:
    """Whether a Prometheus selects a monitor; without a selector of namespaces, in its own."""
    spec, place = server.get("spec") or {}, monitor["metadata"]["namespace"]
    if not selects(spec.get(kind.selector), monitor["metadata"].get("labels") or {}):
        return False
    chosen = spec.get(kind.namespaces)
    if chosen is None:
        return bool(server["metadata"]["namespace"] == place)
    return not chosen or selects(chosen, _labels_of(installation, place))


def _labels_of(installation: Installation, namespace: str) -> Mapping[str, Any]:
    path = f"/api/v1/namespaces/{namespace}"
    found = installation.api.get(f"read the namespace {namespace}", path) or {}
    labels: Mapping[str, Any] = (found.get("metadata") or {}).get("labels") or {}
    return labels


def _place(item: JSON) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"
