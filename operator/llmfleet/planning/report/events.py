"""Kubernetes Events: one per transition, never for a state that lasts."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from llmfleet.api import (
    Condition,
    LLMDeploymentStatus,
    Routing,
    describe_routing,
    describe_step,
)
from llmfleet.planning.children.naming import canonical_json
from llmfleet.planning.plan import PlannedEvent
from llmfleet.planning.report.situation import Situation
from llmfleet.planning.rollout.state import Forward, attempt_of
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

_BY_MESSAGE = {"Accepted", "ActRefused", "MemoryUnreadable", "NameTaken"}
"""What can be true of one thing after another without an end in between, as its message says."""

_OF_AN_END = {"ActDone", "TrafficShifted", "RoutingChanged", "RevisionRejected", "Degraded"}
"""What always comes with a rollout that goes back, and says less than why it does."""


def plan_events(situation: Situation, status: JSON) -> tuple[PlannedEvent, ...]:
    """Events for what this plan starts, ends, or finds changed."""
    before = situation.facts.deployment.status
    events = [*_of_rollout(situation)]
    known = {each.type: each for each in before.conditions}
    for condition in status["conditions"]:
        warns = _WARNS_WHEN.get(condition["type"]) == condition["status"]
        if warns and _begins(before, status, condition):
            events.append(_warning(condition["reason"], condition["message"]))
    if status["phase"] == "Paused" and (before.phase != "Paused" or _is_at_another(before, status)):
        events.append(_normal("Paused", status["message"]))
    if status["phase"] == "Degraded":
        events += _of_degradation(before, status, {each.message for each in events})
    if status["phase"] == "Healthy" and before.phase != "Healthy":
        events.append(_normal("Healthy", status["message"]))
    events += _of_availability(situation, known.get("Available"), status)
    occurrence, ended = _occurrence(situation, status), _end(situation)
    return tuple(
        replace(
            event,
            occurrence=occurrence,
            detail=ended is not None and event.reason in _OF_AN_END and event.reason != ended,
        )
        for event in events
    )


def _begins(before: LLMDeploymentStatus, status: JSON, condition: JSON) -> bool:
    """Whether what a condition warns of was not so before, or was so of something else."""
    old = before.condition(condition["type"])
    if old is None or old.status != condition["status"]:
        return True
    if old.type == "RolledBack":
        return bool(before.spec_revision != status["specRevision"])
    return old.type in _BY_MESSAGE and bool(old.message != condition["message"])


def _of_degradation(
    before: LLMDeploymentStatus, status: JSON, told: Collection[str]
) -> Iterator[PlannedEvent]:
    """That a person is needed; again when what stands in the way is something else."""
    if before.phase != "Degraded":
        yield _warning("Degraded", status["message"])
        return
    old = before.condition("Progressing")
    now = next(each for each in status["conditions"] if each["type"] == "Progressing")
    known = old is not None and (old.status, old.reason) == ("False", now["reason"])
    if now["status"] == "False" and not known and now["message"] not in told:
        yield _warning("Degraded", now["message"])


def _is_at_another(before: LLMDeploymentStatus, status: JSON) -> bool:
    """Whether the attempt or its step is another one: a person is asked at each."""
    old, now = before.rollout, status.get("rollout") or {}
    return old is None or (old.id, old.step) != (now.get("id"), now.get("step"))


def _end(situation: Situation) -> str | None:
    """The reason of the Event that says why a rollout goes back, if this plan has one."""
    advance = situation.rollout.advance
    if advance.failure is None or advance.ended is None:
        return None
    return advance.failure.reason


def _of_availability(
    situation: Situation, before: Condition | None, status: JSON
) -> Iterator[PlannedEvent]:
    """Clients that were served get no answer, or get one again; none are wanted at N = 0."""
    now = next(each for each in status["conditions"] if each["type"] == "Available")
    if before is None or before.status == now["status"] or situation.facts.replicas == 0:
        return
    if now["status"] == "False" and situation.rollout.stable is not None:
        yield _warning(now["reason"], now["message"])
    elif now["status"] == "True" and _served_before(situation, before):
        yield _normal("Available", now["message"])


def _served_before(situation: Situation, gone: Condition) -> bool:
    """Whether clients were served before they were not; a first revision is no news of an end."""
    return any(
        each.promoted_at is not None and each.promoted_at < gone.last_transition_time
        for each in situation.facts.deployment.status.revisions
    )


def _occurrence(situation: Situation, status: JSON) -> str:
    """The same text in another attempt, at another step or split, or after an act is told again."""
    attempts = (
        attempt_of(situation.rollout.advance.state_before),
        attempt_of(situation.rollout.state),
    )
    ids = ">".join(str(each.id) if each is not None else "" for each in attempts)
    step = (status.get("rollout") or {}).get("step", "")
    acts = canonical_json(status.get("handledActs") or {})
    return f"{ids}/{step}/{status.get('trafficGeneration', '')}/{acts}"


def _of_rollout(situation: Situation) -> Iterator[PlannedEvent]:
    rollout, facts, advance = situation.rollout, situation.facts, situation.rollout.advance
    # What ended comes before what takes its place, and before what follows from it.
    if advance.promoted is not None:
        yield _normal("Promoted", f"{advance.promoted} is served to all clients")
    failure = advance.failure
    if failure is not None and advance.ended is not None:
        what = "rejected" if failure.rejected else "aborted"
        yield _warning(failure.reason, f"{advance.ended} is {what}: {failure.message}")
    if advance.started is not None:
        instead = f" instead of {advance.stable}" if advance.stable else ""
        what = f"rolling out {advance.started}{instead}{situation.without_comparison}"
        yield _normal("RolloutStarted", what)
    if rollout.split.traffic and dict(rollout.split.traffic) != dict(facts.traffic):
        split = ", ".join(
            f"{name} {weight} %" for name, weight in sorted(rollout.split.traffic.items())
        )
        yield _normal("TrafficShifted", f"traffic is now {split}")
    if _reached(situation, rollout.routing) != _reached(situation, facts.routing):
        yield _normal("RoutingChanged", describe_routing(_reached(situation, rollout.routing)))
    for act, revision in advance.acts.run.items():
        where = _step_left(situation) if act == "promote" else ""
        yield _normal("ActDone", f"llmfleet.dev/{act} of {revision}{where} is carried out")


def _reached(situation: Situation, routing: Routing | None) -> Routing | None:
    """Routing as clients meet it: nobody is led anywhere by an address that is another's."""
    if routing is None or situation.preview_url is not None:
        return routing
    return routing.model_copy(update={"preview": None})


def _step_left(situation: Situation) -> str:
    """Which steps a promotion has ended, as part of a sentence."""
    advance, steps = situation.rollout.advance, situation.rollout.policy.effective_steps
    state = advance.state_before
    position = state.position if isinstance(state, Forward) else None
    if advance.acts.full:
        return " (all steps)"
    at = position.step if position is not None else 0
    what = f" ({describe_step(steps[at])})" if at < len(steps) else ""
    return f" at step {at + 1} of {len(steps)}{what}"


def _normal(reason: str, message: str) -> PlannedEvent:
    return PlannedEvent(type="Normal", reason=reason, message=message)


def _warning(reason: str, message: str) -> PlannedEvent:
    return PlannedEvent(type="Warning", reason=reason, message=message)
