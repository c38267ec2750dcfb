"""The whole router process against a real API server: watch, outage, restart, end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hack.controlplane.apiserver import ApiServer
from hack.processes.fleet import DEPLOYMENTS
from hack.processes.router import Proxy, RouterProcess, create_chat


@pytest_asyncio.fixture
async def process(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> AsyncIterator[RouterProcess]:
    proxy = Proxy(int(api_server.url.rsplit(":", 1)[1]))
    await proxy.start()
    token = create_chat(api_server, namespace)
    kubeconfig = api_server.write_kubeconfig(
        tmp_path / "kubeconfig", token, f"https://127.0.0.1:{proxy.port}"
    )
    running = RouterProcess(api_server, namespace, proxy, kubeconfig, tmp_path)
    await running.start()
    yield running
    await running.end(number=signal.SIGKILL)
    await proxy.stop()
    sys.stderr.write(running.log.read_text())  # shown when the test fails


def rows(state: dict[str, Any]) -> list[tuple[str, int, int, int]]:
    return [
        (r["revision"], r["weight"], r["effective"], r["endpoints"]) for r in state["revisions"]
    ]


async def test_router_when_the_api_server_commands_comes_and_goes_then_it_follows_and_keeps(
    process: RouterProcess,
) -> None:
    state = await process.until(lambda s: True)
    assert state["trafficGeneration"] is state["object"]["uid"] is None
    assert (await process.get("/ready"))[0] == 503

    process.slice_of("aaaa", "192.0.2.1", "192.0.2.2")
    process.traffic(1, aaaa=100)
    state = await process.until(lambda s: rows(s) == [("aaaa", 100, 100, 2)])
    assert (state["schema"], state["pod"], state["waiting"]) == (1, "chat-router-1", 0)
    path = DEPLOYMENTS.format(process.namespace) + "/chat"
    uid = process.server.request("GET", path).json()["metadata"]["uid"]
    assert state["object"] == {"namespace": process.namespace, "name": "chat", "uid": uid}
    assert state["podUid"] == "chat-router-1-uid"
    assert (await process.get("/ready"))[0] == 200

    hanging = asyncio.create_task(process.get("/llmfleet/state?generation=2&timeout=20"))
    await asyncio.sleep(0.2)
    assert not hanging.done()
    process.slice_of("bbbb", "192.0.2.3", ready=False)
    process.traffic(2, aaaa=75, bbbb=25)
    status, text = await asyncio.wait_for(hanging, 5)
    assert status == 200
    assert '"trafficGeneration": 2' in text
    await process.until(lambda s: rows(s) == [("aaaa", 75, 100, 2), ("bbbb", 25, 0, 0)])
    process.slice_of("bbbb", "192.0.2.3")
    await process.until(lambda s: rows(s) == [("aaaa", 75, 75, 2), ("bbbb", 25, 25, 1)])
    _, metrics = await process.get("/metrics")
    assert 'llmfleet_router_weight{revision="bbbb"} 25.0' in metrics
    assert "llmfleet_router_traffic_generation 2.0" in metrics
    assert "envoy_cluster_membership_total" in metrics

    # Without a right it would list again and again, and so get there, too.
    assert "api_server_unreachable" not in process.log.read_text()
    process.proxy.cut()  # an outage: what is served stays, also through a restart
    process.delete_slice("bbbb")
    process.traffic(3, aaaa=100)
    assert await process.end() == [0, 0]
    await process.start()
    state = await process.until(lambda s: s["trafficGeneration"] is not None)
    state = await process.until(lambda s: len(s["revisions"]) == 2)
    assert rows(state) == [("aaaa", 75, 75, 2), ("bbbb", 25, 25, 1)]
    assert state["object"]["uid"] == uid
    assert (await process.get("/ready"))[0] == 200

    process.proxy.up = True  # the new list shows what was missed
    await process.until(lambda s: rows(s) == [("aaaa", 100, 100, 2)])
    writes = process.server.audited_writes(f"{process.namespace}:chat-router")
    assert writes == []


@pytest.mark.parametrize("query", ["generation=x", "generation=1&timeout=61"])
async def test_state_when_asked_wrongly_then_400(process: RouterProcess, query: str) -> None:
    await process.until(lambda s: True)
    assert (await process.get(f"/llmfleet/state?{query}"))[0] == 400
