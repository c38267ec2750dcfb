"""Constant load, streams included, through everything that changes pods: nothing is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hack.kube import chart
from hack.kube.kubectl import get, kubectl, list_objects, wait_for

from tests.e2e.fleet import Fleet
from tests.e2e.prober import Prober, constant_load

FIRST, SECOND = "pvc://models/tiny-llama", "pvc://models/tiny-llama-v2"


@pytest.mark.alone
def test_scale_when_up_pod_deleted_operator_killed_and_down_then_no_request_is_lost(
    fleet: Fleet, prober: Prober, figure: Callable[[str], None]
) -> None:
    with constant_load(prober, figure, what="scale 1-3-1, pod deleted, operator killed"):
        fleet.scale(3)
        pods = fleet.wait_for_engines(3, timeout_seconds=300)
        fleet.wait_until_healthy()

        victim = pods[0]["metadata"]["name"]
        kubectl("delete", "pod", victim, "-n", fleet.namespace, "--wait=false")
        prober.wait_for_successes(10)

        kill_operator_leader()
        prober.wait_for_successes(10)
        fleet.wait_for_engines(3, timeout_seconds=300)

        fleet.scale(1)
        fleet.wait_for_engines(1, timeout_seconds=120)
        status = fleet.wait_until_healthy()
        assert status["ready"] == "1/1"


def test_rolling_update_when_the_engine_changes_then_no_request_is_lost(
    fleet: Fleet, prober: Prober, figure: Callable[[str], None]
) -> None:
    before = fleet.wait_until_healthy()["servedRevision"]
    model = SECOND if fleet.object()["spec"]["model"]["source"] == FIRST else FIRST
    with constant_load(prober, figure, what="rolling update"):
        # Fewer sequences than ever before, so that it is a revision of which nothing is left.
        fleet.patch({"model": {"source": model}, "engine": {"maxNumSeqs": 12}})
        status = wait_for(
            "the new revision to be served alone",
            lambda: (
                status
                if (status := fleet.status()).get("phase") == "Healthy"
                and status.get("servedRevision") != before
                else None
            ),
            timeout_seconds=240,
            describe=fleet.describe,
        )
        fleet.wait_for_engines(1, timeout_seconds=120)

    assert status["traffic"] == [{"revision": status["specRevision"], "weight": 100}]
    final = prober.counts()["revisions"]
    assert set(final) == {before, status["servedRevision"]}, "load saw other revisions than these"


def kill_operator_leader() -> None:
    """Deletes the leader's pod without grace, and waits until another holds the Lease."""

    def holder() -> str:
        lease = get("lease", "llmfleet-operator", chart.NAMESPACE) or {"spec": {}}
        return str(lease["spec"].get("holderIdentity") or "")

    leader = wait_for("a leader", lambda: holder() or None, timeout_seconds=30)
    pods = list_objects("pods", chart.NAMESPACE, "app.kubernetes.io/name=llmfleet")
    name = next(pod["metadata"]["name"] for pod in pods if pod["metadata"]["uid"] in leader)
    kubectl("delete", "pod", name, "-n", chart.NAMESPACE, "--grace-period=0", "--force")
    wait_for(
        "another leader",
        lambda: holder() not in {"", leader},
        timeout_seconds=60,
        describe=lambda: f"the holder is {holder()}",
    )
