"""Who may connect to whom, asked of the rendered NetworkPolicies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hack.security.rendered import SETTINGS, children

from llmfleet.planning.snapshot import ObjectKey
from tests.unit.planning.fleet import Fleet, resource

JSON = dict[str, Any]

MONITORING = {"kubernetes.io/metadata.name": "monitoring"}
SYSTEM = {"kubernetes.io/metadata.name": "llmfleet-system"}
TEAM = {"kubernetes.io/metadata.name": "team-a"}
OTHER = {"kubernetes.io/metadata.name": "team-b"}

ENGINE = (TEAM, {"llmfleet.dev/deployment": "chat", "llmfleet.dev/component": "engine"})
ROUTER = (TEAM, {"llmfleet.dev/deployment": "chat", "llmfleet.dev/component": "router"})
OTHERS_ROUTER = (TEAM, {"llmfleet.dev/deployment": "bot", "llmfleet.dev/component": "router"})
FOREIGN_ROUTER = (OTHER, ROUTER[1])
CLIENT = (TEAM, {"app": "client"})
PROMETHEUS = (MONITORING, {"app.kubernetes.io/name": "prometheus"})
GRAFANA = (MONITORING, {"app.kubernetes.io/name": "grafana"})
OPERATOR = (SYSTEM, {"app.kubernetes.io/name": "llmfleet"})

Pod = tuple[dict[str, str], dict[str, str]]
"""Labels of its namespace, and its own."""


def selects(selector: JSON, labels: dict[str, str]) -> bool:
    return (selector.get("matchLabels") or {}).items() <= labels.items()


def is_peer(peer: JSON, source: Pod) -> bool:
    namespace, labels = source
    inside = (
        selects(peer["namespaceSelector"], namespace)
        if "namespaceSelector" in peer
        else namespace == TEAM
    )
    return inside and selects(peer.get("podSelector") or {}, labels)


def may_connect(policies: list[JSON], source: Pod, target: Pod, port: int) -> bool:
    """As the NetworkPolicy API says: the union of what the policies of the target allow."""
    chosen = [one["spec"] for one in policies if selects(one["spec"]["podSelector"], target[1])]
    assert chosen, "no policy isolates the target"
    return any(
        port in [each["port"] for each in rule["ports"]]
        and ("from" not in rule or any(is_peer(peer, source) for peer in rule["from"]))
        for spec in chosen
        for rule in spec["ingress"]
    )


@pytest.fixture(scope="module")
def policies() -> list[JSON]:
    raw = resource()
    raw["metadata"]["namespace"] = "team-a"
    return [body for body in children(raw) if body["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize(
    ("source", "target", "port", "may"),
    [
        pytest.param(ROUTER, ENGINE, 8000, True, id="router to engine"),
        pytest.param(OTHERS_ROUTER, ENGINE, 8000, False, id="another fleet's router to engine"),
        pytest.param(FOREIGN_ROUTER, ENGINE, 8000, False, id="another namespace's router"),
        pytest.param(CLIENT, ENGINE, 8000, False, id="client past the router"),
        pytest.param(PROMETHEUS, ENGINE, 8000, False, id="Prometheus to the API"),
        pytest.param(PROMETHEUS, ENGINE, 8081, True, id="Prometheus to metrics"),
        pytest.param(GRAFANA, ENGINE, 8081, False, id="its neighbour to metrics"),
        pytest.param(ROUTER, ENGINE, 8081, False, id="router to health"),
        pytest.param(OPERATOR, ENGINE, 8081, True, id="operator to health"),
        pytest.param(OPERATOR, ENGINE, 8000, False, id="operator to engine's API"),
        pytest.param(CLIENT, ROUTER, 8080, True, id="client to router"),
        pytest.param(OPERATOR, ROUTER, 9090, True, id="operator to agent"),
        pytest.param(PROMETHEUS, ROUTER, 9090, True, id="Prometheus to agent"),
        pytest.param(CLIENT, ROUTER, 9090, False, id="client to agent"),
    ],
)
def test_policies_when_asked_then_only_who_needs_to_may_connect(
    policies: list[JSON], source: Pod, target: Pod, port: int, may: bool
) -> None:
    assert may_connect(policies, source, target, port) is may


def test_policies_when_switched_off_then_those_made_before_are_removed() -> None:
    world = Fleet(resource())
    world.settings = replace(world.settings, network=SETTINGS.network)
    world.settle()
    keys = {key for key in world.objects if key.kind == "NetworkPolicy"}
    assert keys == {
        ObjectKey(api_version="networking.k8s.io/v1", kind="NetworkPolicy", name=name)
        for name in ("chat-engine", "chat-router")
    }
    world.settings = replace(world.settings, network=None)
    world.settle()
    assert not {key for key in world.objects if key.kind == "NetworkPolicy"}
