"""What ``/signals`` says of Prometheus, and whose pods it speaks of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import aiohttp
import pytest
from hack.controlplane.apiserver import free_ports

from llmfleet.cluster.caches import Caches
from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.environment import Environment, read_environment
from llmfleet.cluster.probes import NOT_LEADING, ProbeServer
from llmfleet.cluster.prometheus_access import PrometheusAccess
from llmfleet.cluster.signals_page import ENGINE, OPERATOR, ROUTER, SignalsPage
from llmfleet.planning.snapshot import JSON
from tests.unit.cluster.played_prometheus import Prometheus, play_prometheus

REVISION = "0123456789"
IMAGES = {
    "LLMFLEET_RUNTIME_IMAGE_GPU": "g",
    "LLMFLEET_RUNTIME_IMAGE_CPU": "c",
    "LLMFLEET_ROUTER_IMAGE": "r",
    "LLMFLEET_POD_NAMESPACE": "sys",
    "LLMFLEET_POD_NAME": "llmfleet-1",
}


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    with play_prometheus(datetime.now(UTC)) as found:
        yield found


@pytest.fixture
def environment(prometheus: Prometheus) -> Environment:
    access = PrometheusAccess(url=prometheus.url)
    return replace(read_environment(IMAGES), prometheus=access)


def reference(kind: str, name: str, uid: str) -> JSON:
    return {"kind": kind, "name": name, "uid": uid, "controller": True}


def pod(name: str, component: str, made_by: JSON | None, *, ready: bool = True) -> JSON:
    labels = {"llmfleet.dev/deployment": "chat", "llmfleet.dev/component": component}
    if component == "engine":
        labels["llmfleet.dev/revision"] = REVISION
    meta = {
        "namespace": "team-a", "name": name, "uid": name, "labels": labels, "resourceVersion": "5",
        "creationTimestamp": "2026-03-01T12:00:00Z",
        "ownerReferences": [made_by] if made_by else [],
    }  # fmt: skip
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {"metadata": meta, "status": {"phase": "Running", "conditions": [condition]}}


def caches(*pods: JSON) -> Caches:
    """With the ReplicaSets of our engines and routers, and one of somebody else's Deployment."""
    found = Caches(cast("ApiClient", None), [], lambda _: None)
    for name, deployment in (
        ("rs-engine", f"chat-rev-{REVISION}"), ("rs-router", "chat-router"), ("rs-other", "other"),
    ):  # fmt: skip
        labels = {"llmfleet.dev/deployment": "chat"}
        owner = reference("Deployment", deployment, f"u-{deployment}")
        meta = {"namespace": "team-a", "name": name, "uid": name, "labels": labels}
        body = {"metadata": {**meta, "resourceVersion": "5", "ownerReferences": [owner]}}
        found._replica_sets.put(body)
    for each in pods:
        found._pods.put(each)
    return found


OF_ENGINE = reference("ReplicaSet", f"chat-rev-{REVISION}-7d9", "rs-engine")
OF_ROUTER = reference("ReplicaSet", "chat-router-7d9", "rs-router")


async def read(environment: Environment, held: Caches) -> JSON:
    page = SignalsPage(environment, held)
    found = await page.answer()
    page.close()
    return found


def metric(page: JSON, name: str) -> JSON:
    found: JSON = next(each for each in page["metrics"] if each["metric"] == name)
    return found


async def test_page_when_prometheus_has_what_it_should_then_it_says_as_of_when(
    prometheus: Prometheus, environment: Environment
) -> None:
    prometheus.add([(5, 1)], "llmfleet-1", OPERATOR.name, namespace="sys")
    prometheus.add([(5, 4)], "e-1", ENGINE.name, engine="0")
    prometheus.add([(5, 7)], "r-1", ROUTER.name)
    page = await read(
        environment, caches(pod("e-1", "engine", OF_ENGINE), pod("r-1", "router", OF_ROUTER))
    )
    assert page["problem"] == ""
    assert [each["missing"] for each in page["metrics"]] == [0, 0, 0]
    assert all(each["objects"] == 1 and each["asOf"] for each in page["metrics"])


async def test_page_when_series_are_missing_then_the_object_and_the_chart_value_are_named(
    prometheus: Prometheus, environment: Environment
) -> None:
    prometheus.add([(5, 4)], "e-1", ENGINE.name)
    held = caches(pod("e-1", "engine", OF_ENGINE), pod("r-1", "router", OF_ROUTER))
    page = await read(environment, held)
    (router,) = metric(page, ROUTER.name)["without"]
    assert (router["namespace"], router["name"]) == ("team-a", "chat")
    assert "monitoring.podMonitor.enabled" in router["problem"]
    (operator,) = metric(page, OPERATOR.name)["without"]
    assert "monitoring.serviceMonitor.enabled" in operator["problem"]
    assert metric(page, ENGINE.name)["missing"] == 0


async def test_i12_pods_when_they_have_our_labels_and_are_not_ours_then_nothing_is_said_of_them(
    prometheus: Prometheus, environment: Environment
) -> None:
    strangers = [
        pod("nobody-s", "engine", None),
        pod("a-job-s", "engine", reference("Job", f"chat-rev-{REVISION}-x", "rs-engine")),
        pod("unknown", "engine", reference("ReplicaSet", f"chat-rev-{REVISION}-x", "rs-unknown")),
        pod("other", "engine", reference("ReplicaSet", f"chat-rev-{REVISION}-x", "rs-other")),
        pod("starting", "engine", OF_ENGINE, ready=False),
    ]
    for each in strangers:
        prometheus.add([(1, 200)], each["metadata"]["name"], ENGINE.name)
    page = await read(environment, caches(*strangers))
    assert metric(page, ENGINE.name)["objects"] == 0


@pytest.mark.parametrize(
    ("status", "value"),
    [(401, "prometheus.tokenSecret or prometheus.basicAuthSecret"), (503, "prometheus.url")],
)
async def test_page_when_prometheus_does_not_answer_then_the_chart_value_that_mends_it_is_named(
    prometheus: Prometheus, environment: Environment, status: int, value: str
) -> None:
    prometheus.status = status
    page = await read(environment, caches(pod("e-1", "engine", OF_ENGINE)))
    assert page["problem"].startswith(f"HTTP status {status}")
    assert page["chartValue"] == value
    assert len(prometheus.queries) == 1, "and it is not asked again and again"


async def test_page_when_it_is_looked_at_all_the_time_then_prometheus_is_not(
    prometheus: Prometheus, environment: Environment
) -> None:
    page = SignalsPage(environment, caches(pod("e-1", "engine", OF_ENGINE)))
    first, *others = await asyncio.gather(*(page.answer() for _ in range(5)))
    page.close()
    assert all(each == first for each in others)
    assert len(prometheus.queries) == 3


async def test_page_when_no_prometheus_is_set_then_it_says_so() -> None:
    assert await read(read_environment(IMAGES), caches()) == {"schema": 1, "configured": False}


@pytest.fixture
async def port() -> AsyncIterator[tuple[ProbeServer, str]]:
    (number,) = free_ports(1)
    server = ProbeServer("127.0.0.1", number)
    await server.start()
    yield server, f"http://127.0.0.1:{number}/signals"
    await server.stop()


async def test_port_when_this_replica_does_not_lead_then_it_says_so_and_else_gives_the_page(
    port: tuple[ProbeServer, str],
) -> None:
    server, url = port
    async with aiohttp.ClientSession() as http:
        async with http.get(url) as answer:
            assert (answer.status, await answer.text()) == (503, NOT_LEADING)

        async def page() -> dict[str, Any]:
            return {"schema": 1}

        server.signals = page
        async with http.get(url) as answer:
            assert await answer.json() == {"schema": 1}
