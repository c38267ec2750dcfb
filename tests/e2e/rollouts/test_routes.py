"""Testers by header, copies of requests and sessions, with real pods and a real router."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from hack.kube import chart
from hack.kube.kubectl import get, kubectl, port_forward, wait_for

from tests.e2e.prober import Prober, constant_load
from tests.e2e.stub import StubFleet

TESTERS = {"headers": [{"name": "x-tester", "exact": "yes"}]}


def canary(*steps: dict[str, Any], **policy: Any) -> dict[str, Any]:
    return {
        "strategy": "Canary", "maxSurge": 1, "scaleDownDelay": "10s", "steps": list(steps),
        **policy,
    }  # fmt: skip


def asked(fleet: StubFleet, count: int, headers: dict[str, str]) -> set[str]:
    """The revisions that answered so many requests."""
    found = set()
    with port_forward(f"svc/{fleet.name}", 80, fleet.namespace) as port:
        for _ in range(count):
            reply = httpx.post(
                f"http://127.0.0.1:{port}/v1/chat/completions",
                json={"model": fleet.model, "messages": [{"role": "user", "content": "hello"}]},
                headers=headers, timeout=10, trust_env=False,
            )  # fmt: skip
            assert reply.status_code == 200, reply.text
            found.add(reply.headers["x-llmfleet-revision"])
    return found


def router_state(fleet: StubFleet) -> dict[str, dict[str, Any]]:
    (pod,) = fleet.pods("router")
    with port_forward(f"pod/{pod['metadata']['name']}", 9090, fleet.namespace) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/llmfleet/state", timeout=10, trust_env=False)
    return {one["revision"]: one for one in answer.json()["revisions"]}


def test_header_route_then_only_testers_meet_the_canary(
    releases: StubFleet, figure: Callable[[str], None]
) -> None:
    before = releases.start(canary({"setHeaderRoute": TESTERS}, {"pause": {}}), replicas=1)
    after = releases.release("testers")
    releases.wait_for_phase("Paused")
    assert asked(releases, 30, {"x-tester": "yes"}) == {after}
    assert asked(releases, 30, {}) == {before}
    assert asked(releases, 30, {"x-tester": "no"}) == {before}
    figure("header route: 30 requests of testers to the canary, 60 of others to stable")
    releases.act("abort", f"{after}@e2e")
    releases.wait_for_phase("Degraded")
    assert asked(releases, 10, {"x-tester": "yes"}) == {before}


def test_mirror_then_the_canary_gets_copies_and_clients_only_stable_answers(
    releases: StubFleet, images: chart.Images, figure: Callable[[str], None]
) -> None:
    before = releases.start(canary({"setMirror": {"percent": 50}}, {"pause": {}}), replicas=1)
    load = Prober(releases.namespace, releases.name, releases.model, images.operator)
    with constant_load(load, figure, what="half of the requests mirrored", rate=15):
        after = releases.release("mirrored")
        releases.wait_for_phase("Paused")
        load.wait_for_successes(60)
        state = wait_for(
            "mirrored requests",
            lambda: state if (state := router_state(releases))[after]["mirrored"] > 10 else None,
            timeout_seconds=30,
            describe=lambda: str(router_state(releases)),
        )
        assert set(load.counts()["revisions"]) == {before}
    assert state[after]["requests"] == 0
    figure(f"mirror of 50 %: {state[after]['mirrored']} copies sent, none answered a client")


def test_sessions_when_sticky_then_each_keeps_its_revision(releases: StubFleet) -> None:
    policy = canary({"setWeight": 50}, {"pause": {}}, stickiness="Session")
    releases.start(policy, replicas=1)
    releases.release("sticky")
    releases.wait_for_phase("Paused")
    seen = [asked(releases, 5, {"x-session-id": f"session-{number}"}) for number in range(12)]
    assert all(len(each) == 1 for each in seen)
    assert len(set.union(*seen)) == 2


def test_deletion_in_mid_rollout_then_nothing_is_left_but_the_memory(releases: StubFleet) -> None:
    releases.start(canary({"setWeight": 50}, {"pause": {}}), replicas=1)
    after = releases.release("deleted")
    releases.wait_for_phase("Paused")
    releases.delete()
    memory = get("configmap", f"{releases.name}-llmfleet-memory", releases.namespace) or {}
    assert after in memory["data"]["inJudgement"]
    left = kubectl(
        "get", "deployments,services,controllerrevisions", "-n", releases.namespace,
        "-l", f"llmfleet.dev/deployment={releases.name}", "-o", "name",
    )  # fmt: skip
    assert left.strip() == ""
