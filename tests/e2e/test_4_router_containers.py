"""A router pod's two containers, each killed as the kernel kills it, with real pods under load."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hack.kube import chart
from hack.kube.kubectl import get, kubectl, wait_for

from tests.e2e.prober import Prober, constant_load
from tests.e2e.stub import StubFleet

JSON = dict[str, Any]
AT_ONCE = {"strategy": "RollingUpdate", "maxSurge": 1}


def restarts(pod: JSON) -> dict[str, int]:
    """How often each of its containers was started again."""
    return {each["name"]: each["restartCount"] for each in pod["status"]["containerStatuses"]}


def kill(pod: JSON, part: str) -> None:
    """SIGKILL to a container's first process, from outside: in the container nobody can."""
    uid = f"LLMFLEET_POD_UID={pod['metadata']['uid']}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        if command[-2:] == [b"llmfleet_router", part.encode()] and uid in environment:
            found.append(int(process.name))
    (only,) = found
    os.kill(only, signal.SIGKILL)


def until_restarted(fleet: StubFleet, before: JSON, part: str) -> JSON:
    """Wait until the kubelet has started this container again and the pod is ready; the pod."""
    name = before["metadata"]["name"]
    wanted = restarts(before) | {part: restarts(before)[part] + 1}

    def settled() -> JSON | None:
        pod = get("pod", name, fleet.namespace) or {}
        conditions = pod["status"]["conditions"]
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
        return pod if ready and restarts(pod) == wanted else None

    return wait_for(
        f"{name} to be ready with its container {part} started again, and that alone",
        settled,
        timeout_seconds=120,
        describe=lambda: str(restarts(get("pod", name, fleet.namespace) or before)),
    )


def test_agent_when_killed_then_no_request_is_lost_and_its_successor_follows(
    releases: StubFleet, images: chart.Images, figure: Callable[[str], None]
) -> None:
    before = releases.start(AT_ONCE, replicas=1, router={"replicas": 2})
    load = Prober(releases.namespace, releases.name, releases.model, images.operator)
    try:
        with constant_load(load, figure, what="agent killed in each router", rate=15):
            pods = releases.pods("router")
            assert len(pods) == 2
            for pod in pods:
                kill(pod, "agent")
                until_restarted(releases, pod, "agent")
                load.wait_for_successes(60)
            after = releases.release("2")
            releases.wait_for_phase("Healthy", timeout_seconds=180)
            load.wait_for_successes(30)
        assert set(load.counts()["revisions"]) == {before, after}
        served = {pod["metadata"]["uid"] for pod in releases.pods("router")}
        assert served == {pod["metadata"]["uid"] for pod in pods}
        name = pods[0]["metadata"]["name"]
        log = kubectl("logs", name, "-n", releases.namespace, "-c", "agent")
        assert '"event": "adopted"' in log
    finally:
        load.remove()


def test_envoy_when_killed_then_it_alone_is_started_again_and_serves_the_same(
    releases: StubFleet, images: chart.Images
) -> None:
    revision = releases.start(AT_ONCE, replicas=1, router={"replicas": 2})
    load = Prober(releases.namespace, releases.name, releases.model, images.operator)
    try:
        load.start(15)
        pod = releases.pods("router")[0]
        kill(pod, "envoy")
        until_restarted(releases, pod, "envoy")
        lost = load.counts()
        load.wait_for_successes(60)
        counts = load.stop()
        assert set(counts["revisions"]) == {revision}
        assert counts["failed"] == lost["failed"], "once it is ready again nothing is lost"
        log = kubectl("logs", pod["metadata"]["name"], "-n", releases.namespace, "-c", "agent")
        assert '"event": "envoy_starts_again"' in log
    finally:
        load.remove()
