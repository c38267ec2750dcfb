"""A canary in steps with real engines: promoted by hand, or found bad and rejected by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hack.kube.kubectl import kubectl, wait_for

from tests.e2e.fleet import Fleet
from tests.e2e.prober import Prober, constant_load

JSON = dict[str, Any]
HALF_THEN_ASK = [{"setWeight": 50}, {"pause": {}}]


@pytest.fixture
def canary(fleet: Fleet) -> Iterator[Fleet]:
    """The shared fleet with a canary's policy, and its own again afterwards."""
    before = fleet.object()["spec"]
    fleet.patch({"rollout": {"strategy": "Canary", "steps": HALF_THEN_ASK}})
    served = fleet.wait_until_healthy()["servedRevision"]
    yield fleet
    after = {"rollout": {**before["rollout"], "steps": None}}
    if fleet.status().get("servedRevision") in {None, served}:  # the way back from a promoted one
        after["model"] = before["model"]  # would be an engine's start that nobody looks at
    fleet.patch(after)
    fleet.wait_until_healthy(timeout_seconds=300)


def wait_for_phase(fleet: Fleet, phase: str) -> JSON:
    return wait_for(
        f"phase {phase}",
        lambda: status if (status := fleet.status()).get("phase") == phase else None,
        timeout_seconds=300,
        describe=fleet.describe,
    )


def test_canary_when_promoted_by_hand_then_it_had_its_share_and_no_request_is_lost(
    canary: Fleet, prober: Prober, figure: Callable[[str], None]
) -> None:
    before = canary.status()["servedRevision"]
    with constant_load(prober, figure, what="canary at 50 %, then promoted"):
        canary.patch({"model": {"source": "pvc://models/tiny-llama-v2"}})
        paused = wait_for_phase(canary, "Paused")
        revision = paused["rollout"]["revision"]
        assert {one["revision"]: one["weight"] for one in paused["traffic"]} == {
            before: 50,
            revision: 50,
        }
        assert paused["servedRevision"] == before
        at_pause = prober.counts()["revisions"].get(revision, 0)
        prober.wait_for_successes(20)
        assert prober.counts()["revisions"][revision] > at_pause
        kubectl(
            "annotate", "llmdep", canary.name, "-n", canary.namespace,
            f"llmfleet.dev/promote={revision}@e2e",
        )  # fmt: skip
        status = wait_for_phase(canary, "Healthy")

    assert status["servedRevision"] == revision == status["specRevision"]
    assert status["traffic"] == [{"revision": revision, "weight": 100}]


def test_canary_when_its_engine_cannot_start_then_it_is_rejected_and_stable_undisturbed(
    canary: Fleet, prober: Prober, figure: Callable[[str], None]
) -> None:
    before = canary.wait_until_healthy()["servedRevision"]
    with constant_load(prober, figure, what="a canary that cannot start"):
        # A name of its own: what is rejected here would stay so in other tests.
        canary.patch({"model": {"source": "pvc://models/no-such-canary"}})
        status = wait_for_phase(canary, "Degraded")
        prober.wait_for_successes(10)

    assert status["servedRevision"] == before
    assert [one["hash"] for one in status["rejectedRevisions"]] == [status["specRevision"]]
    rolled_back = canary.condition("RolledBack")
    assert (rolled_back["status"], rolled_back["reason"]) == ("True", "RevisionRejected")
    assert set(prober.counts()["revisions"]) == {before}, "the canary never had a request"
