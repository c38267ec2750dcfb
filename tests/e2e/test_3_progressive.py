"""A release judged by what clients get: errors send it back; blue-green in one switch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from hack.kube import chart
from hack.kube.kubectl import port_forward, wait_for

from tests.e2e.prober import Prober, constant_load
from tests.e2e.stub import StubFleet

CANARY = {
    "strategy": "Canary",
    "maxSurge": 1,
    "scaleDownDelay": "10s",
    "steps": [{"setWeight": 50}, {"analysis": {}}],
    "analysis": {"minSamples": 40, "maxDuration": "5m"},
}
BLUE_GREEN = {
    "strategy": "BlueGreen",
    "blueGreen": {"promotion": "Manual"},
    "scaleDownDelay": "10m",
}


@pytest.fixture
def load(releases: StubFleet, images: chart.Images) -> Iterator[Prober]:
    """Constant load on the fleet of stub engines; not started yet."""
    probe = Prober(releases.namespace, releases.name, releases.model, images.operator)
    yield probe
    probe.remove()


def test_canary_when_it_answers_well_under_load_then_it_is_promoted_on_its_numbers(
    releases: StubFleet, load: Prober, figure: Callable[[str], None]
) -> None:
    before = releases.start(CANARY)
    with constant_load(load, figure, what="a canary judged by its requests", rate=15):
        after = releases.release("2")
        status = releases.wait_until_healthy(timeout_seconds=180)
    assert status["servedRevision"] == after != before
    assert "rejectedRevisions" not in status
    assert len(releases.pods_made(after)) == 2, "a pod loads its model once a release"
    assert len(releases.pods_made(before)) == 2, "and the old one's none at all"


def test_canary_when_it_fails_requests_then_it_is_rejected_and_only_its_own_share_suffers(
    releases: StubFleet, load: Prober, figure: Callable[[str], None]
) -> None:
    before = releases.start(CANARY)
    load.start(rate=15)
    after = releases.release("3", fault="errors:0.3")
    status = releases.wait_for_phase("Degraded", timeout_seconds=180)
    load.wait_for_successes(30)
    counts = load.stop()

    assert status["servedRevision"] == before
    entry = releases.rejected()[after]
    assert entry["reason"] == "ErrorRateRegression"
    assert "of the" in entry["message"]
    figure(
        f"a canary that fails 30 % of its requests: {counts['sent']} sent,"
        f" failed by revision {counts['failed_by']}; status says: {entry['message']}"
    )
    assert set(counts["failed_by"]) == {after}, counts["reasons"]
    assert counts["truncated"] == 0
    assert releases.weights() == {before: 100}


def test_blue_green_when_promoted_then_one_switch_and_an_instant_way_back_lose_nothing(
    releases: StubFleet, load: Prober, figure: Callable[[str], None]
) -> None:
    before = releases.start(BLUE_GREEN, replicas=1)
    with constant_load(load, figure, what="blue-green, promoted and undone", rate=15):
        after = releases.release("4")
        status = releases.wait_for_phase("Paused")
        assert status["previewUrl"] in status["message"]
        assert releases.weights() == {before: 100}
        assert previewed(releases) == after
        assert set(load.counts()["revisions"]) == {before}, "clients met the preview"

        releases.act("promote", f"{after}@e2e")
        status = releases.wait_for_phase("Healthy")
        assert status["servedRevision"] == after
        assert previewed(releases) == after

        releases.act("undo", f"{before}@e2e")
        wait_for(
            "the former set to serve again",
            lambda: releases.status().get("servedRevision") == before,
            timeout_seconds=30,
            describe=releases.describe,
        )
        assert releases.status()["phase"] == "Degraded", "spec asks for what was undone"
    assert releases.rejected()[after]["reason"] == "UserUndo"


def previewed(fleet: StubFleet) -> str:
    """The revision that answers at the preview address."""

    def answer() -> str | None:
        with port_forward(f"svc/{fleet.name}-preview", 80, fleet.namespace) as port:
            reply = httpx.post(
                f"http://127.0.0.1:{port}/v1/chat/completions",
                json={"model": fleet.model, "messages": [{"role": "user", "content": "hello"}]},
                timeout=10,
                trust_env=False,
            )
        return reply.headers.get("x-llmfleet-revision") if reply.status_code == 200 else None

    return wait_for("an answer at the preview address", answer, timeout_seconds=30)
