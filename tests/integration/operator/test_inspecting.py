"""What is asked about pods that do not come, of a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hack.controlplane.apiserver import ApiServer
from kubernetes.aio import client as kube
from kubernetes.aio import config as kube_config

from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.inspecting import MOST_EVENTS, PodInspector
from llmfleet.planning.snapshot import ObservedPod, PodWarning
from tests.unit.planning.builders import engine_pod

JSON = dict[str, Any]
BEGUN = datetime.now(UTC) - timedelta(minutes=5)


@pytest.fixture
async def api(api_server: ApiServer) -> AsyncIterator[ApiClient]:
    configuration = kube.Configuration()
    await kube_config.load_kube_config(
        config_file=str(api_server.kubeconfig), client_configuration=configuration
    )
    found = ApiClient(configuration)
    yield found
    await found.close()


def tell(
    server: ApiServer, namespace: str, uid: str, reason: str, message: str, name: str = "e-"
) -> None:
    """An Event as the kubelet makes it; lists have them by name."""
    event = {
        "metadata": {"generateName": name},
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": "p", "uid": uid},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    server.create(f"/api/v1/namespaces/{namespace}/events", event)


def make_node(server: ApiServer, name: str, ready: str) -> None:
    nodes = "/api/v1/nodes"
    made = server.create(nodes, {"metadata": {"name": name}})
    made["status"] = {"conditions": [{"type": "Ready", "status": ready, "reason": "r"}]}
    assert server.request("PUT", f"{nodes}/{name}/status", made).status_code == 200


async def known(api: ApiClient, namespace: str, *pods: ObservedPod) -> list[ObservedPod]:
    """The pods once all were asked about."""
    woken = asyncio.Event()
    inspector = PodInspector(api, lambda owner: woken.set(), every_seconds=0.1)
    owner = (namespace, "c")
    try:
        found = inspector.track(owner, pods)
        async with asyncio.timeout(60):
            while not all(pod.asked for pod in found):
                woken.clear()
                await woken.wait()
                found = inspector.track(owner, pods)
    finally:
        await inspector.close()
    return list(found)


async def test_pods_when_their_nodes_do_not_begin_them_then_each_has_its_own_warning(
    api_server: ApiServer, namespace: str, api: ApiClient
) -> None:
    missing = 'MountVolume.SetUp failed for volume "t" : configmap "t" not found'
    tell(api_server, namespace, "u1", "FailedMount", missing)
    tell(api_server, namespace, "u2", "FailedCreatePodSandBox", "no network")
    tell(api_server, namespace, "u2", "Unhealthy", "something else")
    facts: JSON = {"node": "none", "sandbox_missing_since": BEGUN, "created_at": BEGUN}
    pods = [engine_pod(f"p{uid}", **{**facts, "uid": uid}) for uid in ("u1", "u2", "u3")]
    found = await known(api, namespace, *pods)
    words = [pod.warning and (pod.warning.reason, pod.warning.message) for pod in found]
    assert words == [("FailedMount", missing), ("FailedCreatePodSandBox", "no network"), None]
    assert not any(pod.node_lost for pod in found), "nobody knows the node"


async def test_warning_when_older_ones_of_the_pod_are_many_or_huge_then_it_costs_little(
    api_server: ApiServer, namespace: str, api: ApiClient
) -> None:
    for number in range(MOST_EVENTS + 1):
        tell(api_server, namespace, "u1", "FailedScheduling", f"0/{number} nodes", "a-")
    tell(api_server, namespace, "u1", "FailedMount", "no disk")
    for _ in range(12):
        tell(api_server, namespace, "u2", "FailedMount", "x" * 100_000)
    facts: JSON = {"node": "none", "sandbox_missing_since": BEGUN, "created_at": BEGUN}
    pods = [engine_pod(f"p{uid}", **{**facts, "uid": uid}) for uid in ("u1", "u2")]
    many, huge = await known(api, namespace, *pods)
    assert many.warning == PodWarning(reason="FailedMount", message="no disk")
    assert (huge.asked, huge.warning) == (True, None)


async def test_f22_pod_when_never_ready_on_a_node_that_died_then_the_node_says_so(
    api_server: ApiServer, namespace: str, api: ApiClient
) -> None:
    names = {status: f"{namespace}-{status.lower()}" for status in ("True", "Unknown", "False")}
    for status, name in names.items():
        make_node(api_server, name, status)
    facts: JSON = {"running_since": BEGUN, "unready_since": BEGUN, "created_at": BEGUN}
    pods = [engine_pod(name, node=name, phase="Running", **facts) for name in names.values()]
    found = await known(api, namespace, *pods)
    assert [pod.node_lost for pod in found] == [False, True, True]
