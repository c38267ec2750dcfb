"""Whether Prometheus answers the operator, and has the series of its pods: the operator says it.

Only from the operator's own place, with its token and through its NetworkPolicies, is it seen
whether Prometheus answers it. So the replica that leads is asked for its page ``/signals``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from llmfleet.api import GROUP, PLURAL, VERSION
from llmfleet.cli.doctor.asking import JSON
from llmfleet.cli.doctor.finding import Finding, UnknownError, chart_value, missing, ok, unknown
from llmfleet.cli.doctor.operators import METRICS_PORT, Installation, Operator, holder_pod

MOST_NAMED: Final = 5
URL: Final = "LLMFLEET_PROMETHEUS_URL"


def check_prometheus(installation: Installation) -> Iterator[Finding]:
    """Whether each operator is told of one where it needs one, and has its series there."""
    for operator in installation.operators:
        try:
            yield from _check(installation, operator)
        except UnknownError as error:
            yield unknown("prometheus", error)


def _check(installation: Installation, operator: Operator) -> Iterator[Finding]:
    if operator.environment.get(URL, "") == "":
        yield _check_need(installation, operator)
        return
    page = _ask(installation, operator)
    if not page.get("configured"):
        yield _check_need(installation, operator)
        return
    if page.get("problem"):
        yield missing(
            "prometheus",
            f"Prometheus does not answer the operator {operator.place}: {page['problem']}",
            f"correct the chart value {page.get('chartValue') or 'prometheus.url'}",
        )
        return
    yield ok("prometheus", f"Prometheus answers the operator {operator.place}")
    try:
        yield from [_check_metric(each) for each in page["metrics"]]
    except (AttributeError, LookupError, TypeError) as error:
        raise UnknownError("the operator's page /signals is not of this version") from error


def _check_metric(said: JSON) -> Finding:
    name, objects, without = said.get("metric"), said.get("objects"), said.get("missing")
    if not objects:
        return ok("series", f"there are no pods that {name} could be of")
    if not without:
        return ok("series", f"Prometheus has {name} of {objects} of {objects} as of {said['asOf']}")
    named = said.get("without") or []
    shown = [f"{each.get('namespace')}/{each.get('name')}" for each in named[:MOST_NAMED]]
    why = named[0].get("problem") if named else "it does not say why"
    return missing(
        "series",
        f"of {objects} whose pods have {name}, it is not known of {without}"
        f" ({', '.join(shown)}): {why}",
        f"{chart_value(str(said.get('chartValue')), 'true')} where the Prometheus operator runs,"
        " else scrape by the pods' annotations prometheus.io/; and let it in:"
        " networkPolicies.prometheus.namespaceLabels",
    )


def _check_need(installation: Installation, operator: Operator) -> Finding:
    wanting = [
        f"{each['metadata'].get('namespace')}/{each['metadata'].get('name')}"
        for each in _deployments(installation)
        if (each.get("spec") or {}).get("autoscaling")
    ]
    if not wanting:
        text = "no Prometheus is set, and none is needed: routers count what canaries are judged by"
        return ok("prometheus", f"{operator.place}: {text}")
    return missing(
        "prometheus",
        f"no Prometheus is set for {operator.place}, and {', '.join(wanting[:MOST_NAMED])} would"
        " be scaled by it",
        chart_value("prometheus.url", "http://prometheus.monitoring.svc:9090, or where it is"),
    )


def _deployments(installation: Installation) -> list[JSON]:
    """LLMDeployments that may be seen; to see none is to know of none that needs it."""
    for place in ("", f"namespaces/{installation.namespace}/"):
        try:
            path = f"/apis/{GROUP}/{VERSION}/{place}{PLURAL}"
            return installation.api.list("list LLMDeployments", path) or []
        except UnknownError:
            continue
    return []


def _ask(installation: Installation, operator: Operator) -> JSON:
    """The page of the replica that leads.

    Raises:
        UnknownError: none leads, or it cannot be asked.
    """
    for lease in installation.leases:
        if lease["metadata"].get("namespace") != operator.namespace:
            continue
        pod = holder_pod(installation, lease)
        if pod is not None:
            name = pod["metadata"]["name"]
            status, body = installation.api.ask_pod(
                operator.namespace, name, METRICS_PORT, "signals"
            )
            return _read(name, status, body)
    raise UnknownError(f"no pod of {operator.place} is seen to lead, which would say it")


def _read(name: str, status: int, body: bytes) -> JSON:
    try:
        page = json.loads(body)
    except (ValueError, RecursionError):
        page = None
    if status != 200 or not isinstance(page, dict):
        raise UnknownError(f"{name} has no page /signals of this version (HTTP status {status})")
    return page
