"""What is said of a resource that nothing is decided about, since too little of it can be read."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ValidationError

from llmfleet.api import STATUS_SCHEMA, Condition, shorten
from llmfleet.planning.plan import Plan, PlannedEvent
from llmfleet.planning.report.conditions import LONGEST_MESSAGE, build_conditions
from llmfleet.planning.snapshot import JSON
from llmfleet.planning.stage import ConditionValue


def decide_unreadable(raw: JSON, problem: str, now: datetime) -> Plan:
    """Say so, and leave children and traffic as they are until the spec is corrected.

    Args:
        raw: the resource as stored.
        problem: which field cannot be read and why.
        now: an aware datetime; fractions of a second are dropped.

    Returns:
        A plan that only records conditions; no retry, an edit of the spec is an event.
    """
    stored: Any = raw.get("status") or {}
    if (stored.get("schema") or 0) > STATUS_SCHEMA:
        return Plan(status=None, summary="status.schema is newer than this operator")
    what = "status" if problem.startswith("status.") else "spec"
    text = f"the {what} cannot be read, what is served stays: {problem}"
    said = ConditionValue(type="Accepted", status="False", reason="InvalidSpec", message=text)
    return _say_only(raw, said, now)


def decide_unremembered(raw: JSON, problem: str, now: datetime) -> Plan:
    """The same for a resource without a status whose memory cannot be read.

    Only its memory could tell what it served and what was rejected.

    Args:
        raw: the resource as stored.
        problem: what cannot be read and how to mend it.
        now: an aware datetime; fractions of a second are dropped.
    """
    said = ConditionValue(
        type="MemoryUnreadable", status="True", reason="MemoryUnreadable", message=problem
    )
    return _say_only(raw, said, now)


def _say_only(raw: JSON, said: ConditionValue, now: datetime) -> Plan:
    """A plan that records a verdict, and that the resource is Degraded by it.

    Whether clients get answers nobody looks at meanwhile, so nothing is said of that either.
    ``schema`` stays as it is: a resource without one still counts as one without a status once it
    can be read, so that memory is asked what it served, and old acts are not run.
    """
    now = now.replace(microsecond=0)
    stored: Any = raw.get("status") or {}
    previous = _readable(stored.get("conditions"))
    generation = raw["metadata"]["generation"]
    values = [
        said,
        ConditionValue(type="Ready", status="False", reason="Degraded", message=said.message),
        ConditionValue(
            type="Available",
            status="Unknown",
            reason=said.reason,
            message=f"nobody looks while {said.message}",
        ),
        ConditionValue(type="Stalled", status="True", reason="Degraded", message=said.message),
    ]
    told = {value.type for value in values} | {"Reconciling"}
    status: JSON = {
        **stored,
        "observedGeneration": generation,
        "phase": "Degraded",
        "message": shorten(said.message, LONGEST_MESSAGE),
        "conditions": [
            *build_conditions(values, previous, generation, now),
            *(one for one in stored.get("conditions") or [] if one["type"] not in told),
        ],
    }
    known = {one.type: one for one in previous}
    events = (PlannedEvent(type="Warning", reason=said.reason, message=said.message),)
    repeated = said.type in known and known[said.type].message == shorten(
        said.message, LONGEST_MESSAGE
    )
    return Plan(status=status, events=() if repeated else events, summary=said.message)


def _readable(conditions: Any) -> list[Condition]:
    found = []
    for each in conditions or []:
        try:
            found.append(Condition.model_validate(each))
        except ValidationError:
            continue
    return found
