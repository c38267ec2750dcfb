"""Series by object: what alerts are made of, and that none is left behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from llmfleet.cluster.gauges import ObjectGauges

OWNER = ("team-a", "chat")
LABELS = {"namespace": "team-a", "name": "chat"}
STATUS: dict[str, Any] = {
    "phase": "Progressing",
    "ready": "2/2",
    "specRevision": "new",
    "servedRevision": "old",
    "canaryWeight": 25,
    "conditions": [{"type": "Available", "status": "True"}],
    "rollout": {"id": 3, "revision": "new", "step": 1, "plan": {"maxSurge": 1}},
}
REJECTED = {
    **STATUS,
    "phase": "Degraded",
    "rollout": None,
    "conditions": [*STATUS["conditions"], {"type": "RolledBack", "status": "True"}],
}


@pytest.fixture
def gauges() -> Iterator[ObjectGauges]:
    made = ObjectGauges()
    yield made
    made.forget(OWNER)


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"llmfleet_{name}", {**LABELS, **labels})


def test_rollout_when_the_phase_changes_or_it_ends_then_no_series_is_left(
    gauges: ObjectGauges,
) -> None:
    def shown(phase: str) -> float | None:
        return value("rollout_phase", revision="new", phase=phase)

    gauges.show(OWNER, STATUS)
    assert (shown("Progressing"), value("rollout_weight", revision="new")) == (1, 25)
    gauges.show(OWNER, {**STATUS, "phase": "Paused"})
    assert (shown("Progressing"), shown("Paused")) == (None, 1)
    gauges.show(OWNER, {"phase": "Healthy"})
    assert shown("Paused") is None
    gauges.show(OWNER, {**STATUS, "rollout": {**STATUS["rollout"], "aborted": "UserAbort"}})
    assert shown("Progressing") is None


def test_phase_when_a_rollout_was_rejected_then_both_are_shown_by_name(
    gauges: ObjectGauges,
) -> None:
    gauges.show(OWNER, REJECTED)
    assert value("phase", phase="Degraded") == 1
    assert value("rejected", revision="new") == 1
    gauges.show(OWNER, STATUS)
    assert value("phase", phase="Degraded") is None
    assert value("rejected", revision="new") is None


@pytest.mark.parametrize(
    ("ready", "available", "shown"),
    [("2/2", "True", 1), ("0/2", "False", 0), ("0/0", "False", None)],
    ids=["served", "an outage", "zero replicas"],
)
def test_available_when_shown_then_0_is_an_outage(
    gauges: ObjectGauges, ready: str, available: str, shown: float | None
) -> None:
    conditions = [{"type": "Available", "status": available}]
    gauges.show(OWNER, {**STATUS, "ready": ready, "conditions": conditions})
    assert value("available") == shown


def test_available_when_no_revision_was_served_yet_then_it_is_no_outage(
    gauges: ObjectGauges,
) -> None:
    status = {**STATUS, "conditions": [{"type": "Available", "status": "False"}]}
    gauges.show(OWNER, {**status, "ready": "0/2", "servedRevision": None})
    assert value("available") is None
    gauges.show(OWNER, {**status, "ready": "0/2"})
    assert value("available") == 0


def test_available_when_nobody_can_tell_then_it_is_neither_an_outage_nor_none(
    gauges: ObjectGauges,
) -> None:
    gauges.show(OWNER, STATUS)
    assert value("available") == 1
    gauges.show(OWNER, {**STATUS, "conditions": [{"type": "Available", "status": "Unknown"}]})
    assert value("available") is None


ALERTS = re.compile(r"^\| `(?:absent\()?llmfleet_(\w+)(\{[^}]*\})? == ", re.MULTILINE)


def test_alert_when_the_page_names_it_then_its_series_is_there_in_the_state_that_it_is_about(
    gauges: ObjectGauges,
) -> None:
    """An expression without a series is an alert that never comes."""
    named = ALERTS.findall((Path(__file__).parents[3] / "docs" / "operator.md").read_text())
    assert {name for name, _ in named} == {"available", "phase", "rejected", "leader"}
    for name, matcher in named:
        phase = matcher.partition('"')[2].partition('"')[0]
        gauges.show(OWNER, {**REJECTED, "phase": phase or "Degraded"})
        labels = {"phase": phase} if phase else {}
        if name == "rejected":
            labels = {"revision": "new"}
        if name == "leader":
            assert REGISTRY.get_sample_value("llmfleet_leader") is not None
        else:
            assert value(name, **labels) == 1, name


def test_series_when_the_object_is_gone_then_none_is_left(gauges: ObjectGauges) -> None:
    gauges.show(OWNER, REJECTED)
    gauges.forget(OWNER)
    assert value("available") is None
    assert value("phase", phase="Degraded") is None
    assert value("rejected", revision="new") is None
