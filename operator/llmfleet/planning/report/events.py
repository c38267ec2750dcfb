"""Kubernetes Events: one per transition, never for a state that lasts."""

from __future__ import annotations

from datetime import datetime

from llmfleet.api import describe_routing
from llmfleet.planning.plan import Outcome, PlannedEvent, Result
from llmfleet.planning.report.conditions import Situation
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
    plan, before = situation.rollout, situation.facts.deployment.status
    events = []
    if plan.started is not None:
        instead = f" instead of {plan.stable}" if plan.stable else ""
        events.append(_normal("RolloutStarted", f"rolling out {plan.started}{instead}"))
    if plan.traffic and dict(plan.traffic) != dict(situation.facts.traffic):
        split = ", ".join(f"{name} {weight} %" for name, weight in sorted(plan.traffic.items()))
        events.append(_normal("TrafficShifted", f"traffic is now {split}"))
    if plan.routing != situation.facts.routing:
        events.append(_normal("RoutingChanged", describe_routing(plan.routing)))
    if plan.promoted is not None:
        events.append(_normal("Promoted", f"{plan.promoted} is served to all clients"))
    failure, target = situation.intent.failure, situation.intent.current
    if failure is not None and target is not None:
        what = "rejected" if failure.rejected else "aborted"
        events.append(_warning(failure.reason, f"{target} is {what}: {failure.message}"))
    events += [
        _normal("ActDone", f"llmfleet.dev/{act} of {revision} is carried out")
        for act, revision in situation.intent.acts.run.items()
    ]
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


def find_outcome(situation: Situation, now: datetime) -> Outcome | None:
    """The end of the attempt under way, if this plan ends it."""
    plan, intent = situation.rollout, situation.intent
    record = situation.facts.deployment.status.rollout
    began = record.started_at if record is not None else None
    seconds = (now - began).total_seconds() if began is not None else 0.0
    target = intent.current
    if plan.promoted is not None:
        return Outcome(
            revision=plan.promoted, result=Result.PROMOTED, reason="Promoted", seconds=seconds
        )
    if target is None or record is None or record.aborted is not None:
        return None
    if intent.failure is not None:
        result = Result.REJECTED if intent.failure.rejected else Result.ABORTED
        reason = intent.failure.reason
    elif plan.returning:
        result, reason = Result.ABORTED, "Superseded"
    else:
        return None
    return Outcome(revision=target, result=result, reason=reason, seconds=seconds)


def _normal(reason: str, message: str) -> PlannedEvent:
    return PlannedEvent(type="Normal", reason=reason, message=message)


def _warning(reason: str, message: str) -> PlannedEvent:
    return PlannedEvent(type="Warning", reason=reason, message=message)
