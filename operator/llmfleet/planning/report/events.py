"""Kubernetes Events: one per transition, never for a state that lasts."""

from __future__ import annotations

from collections.abc import Iterator

from llmfleet.api import describe_routing
from llmfleet.planning.plan import PlannedEvent
from llmfleet.planning.report.situation import Situation
from llmfleet.planning.snapshot import JSON

_WARNS_WHEN = {
    "Accepted": "False",
    "CapacityAvailable": "False",
    "ActRefused": "True",
    "MemoryUnreadable": "True",
    "NameTaken": "True",
    "RolledBack": "True",
    "RuntimeOutdated": "True",
}


def plan_events(situation: Situation, status: JSON) -> tuple[PlannedEvent, ...]:
    """Events for what this plan starts, ends, or finds changed."""
    before = situation.facts.deployment.status
    events = [*_of_rollout(situation)]
    known = {each.type: each for each in before.conditions}
    for condition in status["conditions"]:
        old = known.get(condition["type"])
        changed = old is None or old.status != condition["status"]
        if changed and _WARNS_WHEN.get(condition["type"]) == condition["status"]:
            events.append(_warning(condition["reason"], condition["message"]))
    if status["phase"] == "Paused" and before.phase != "Paused":
        events.append(_normal("Paused", status["message"]))
    if status["phase"] == "Degraded" and before.phase != "Degraded":
        events.append(_warning("Degraded", status["message"]))
    if status["phase"] == "Healthy" and before.phase != "Healthy":
        events.append(_normal("Healthy", status["message"]))
    return tuple(events)


def _of_rollout(situation: Situation) -> Iterator[PlannedEvent]:
    rollout, facts, advance = situation.rollout, situation.facts, situation.rollout.advance
    if advance.started is not None:
        instead = f" instead of {advance.stable}" if advance.stable else ""
        yield _normal("RolloutStarted", f"rolling out {advance.started}{instead}")
    if rollout.split.traffic and dict(rollout.split.traffic) != dict(facts.traffic):
        split = ", ".join(
            f"{name} {weight} %" for name, weight in sorted(rollout.split.traffic.items())
        )
        yield _normal("TrafficShifted", f"traffic is now {split}")
    if rollout.routing != facts.routing:
        yield _normal("RoutingChanged", describe_routing(rollout.routing))
    if advance.promoted is not None:
        yield _normal("Promoted", f"{advance.promoted} is served to all clients")
    failure = advance.failure
    if failure is not None and advance.ended is not None:
        what = "rejected" if failure.rejected else "aborted"
        yield _warning(failure.reason, f"{advance.ended} is {what}: {failure.message}")
    for act, revision in advance.acts.run.items():
        yield _normal("ActDone", f"llmfleet.dev/{act} of {revision} is carried out")


def _normal(reason: str, message: str) -> PlannedEvent:
    return PlannedEvent(type="Normal", reason=reason, message=message)


def _warning(reason: str, message: str) -> PlannedEvent:
    return PlannedEvent(type="Warning", reason=reason, message=message)
