"""Bad releases in real pods under load: stable is undisturbed, and status says what happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hack.kube import chart

from tests.e2e.prober import Prober, constant_load
from tests.e2e.stub import StubFleet

CANARY: dict[str, Any] = {
    "strategy": "Canary",
    "maxSurge": 1,
    "scaleDownDelay": "10s",
    "progressDeadline": "45s",
    "steps": [{"setWeight": 50}, {"pause": {"duration": "5m"}}],
}
REJECTED = {
    "crash loop": ({"fault": "exit:8"}, {"CrashLoop", "EngineExited", "EngineError"}),
    "out of memory": ({"fault": "memory", "memory": "256Mi"}, {"OutOfMemory"}),
    "never ready": ({"fault": "never-ready"}, {"NeverReady"}),
}


@pytest.mark.parametrize("name", REJECTED)
def test_release_when_its_pods_fail_then_it_is_rejected_and_stable_never_disturbed(
    releases: StubFleet, images: chart.Images, name: str, figure: Callable[[str], None]
) -> None:
    release, reasons = REJECTED[name]
    before = releases.start(CANARY)
    load = Prober(releases.namespace, releases.name, releases.model, images.operator)
    load.start(rate=10)
    after = releases.release(name.replace(" ", "-"), **release)
    status = releases.wait_for_phase("Degraded", timeout_seconds=300)
    load.wait_for_successes(20)
    counts = load.stop()

    entry = releases.rejected()[after]
    figure(
        f"{name}: {entry['reason']}; {counts['sent']} sent, {counts['failed']} failed,"
        f" {counts['truncated']} truncated, by revision {counts['failed_by']}:"
        f" {counts['reasons']}; status says: {entry['message']}"
    )
    assert entry["reason"] in reasons
    assert status["servedRevision"] == before
    assert releases.weights() == {before: 100}
    assert counts["failed_by"].get(before, 0) == 0
    if name == "never ready":
        assert counts["failed"] + counts["truncated"] == 0


def test_release_when_a_config_map_of_its_volume_is_missing_then_it_is_aborted_and_named(
    releases: StubFleet, images: chart.Images, figure: Callable[[str], None]
) -> None:
    before = releases.start(CANARY)
    load = Prober(releases.namespace, releases.name, releases.model, images.operator)
    volumes = [{"name": "absent", "configMap": {"name": "no-such-template"}}]
    with constant_load(load, figure, what="a release without its ConfigMap", rate=10):
        releases.patch({"podTemplate": {"volumes": volumes}})
        said = releases.wait_for_condition(
            "Progressing", "True", "WaitingForRetry", timeout_seconds=300
        )
    assert "ConfigMapMissing" in said["message"]
    assert releases.rejected() == {}
    assert releases.weights() == {before: 100}
    new = releases.status()["specRevision"]
    made = [pod["metadata"]["labels"]["llmfleet.dev/revision"] for pod in releases.pods("engine")]
    assert new not in made, "its accelerators are given back"


def test_release_when_its_image_is_missing_then_it_is_aborted_and_tried_again(
    releases: StubFleet, images: chart.Images, figure: Callable[[str], None]
) -> None:
    before = releases.start(CANARY)
    load = Prober(releases.namespace, releases.name, releases.model, images.operator)
    missing = f"localhost/llmfleet/no-such-engine@sha256:{'0' * 64}"
    with constant_load(load, figure, what="a release whose image is missing", rate=10):
        releases.patch({"engine": {"image": missing}})
        said = releases.wait_for_condition(
            "Progressing", "True", "WaitingForRetry", timeout_seconds=240
        )
    assert "tried again at" in said["message"]
    assert "ImagePullFailed" in said["message"]
    assert releases.rejected() == {}
    assert releases.weights() == {before: 100}
