"""A resource that the models cannot read: stored while another CRD allowed it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ValidationError

from llmfleet.api import COMPATIBLE_SCHEMA, STATUS_SCHEMA, Condition
from llmfleet.planning.plan import Plan, PlannedEvent
from llmfleet.planning.report.conditions import build_conditions
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
    now = now.replace(microsecond=0)
    stored: Any = raw.get("status") or {}
    if (stored.get("schema") or 0) > STATUS_SCHEMA:
        return Plan(status=None, summary="status.schema is newer than this operator")
    what = "status" if problem.startswith("status.") else "spec"
    text = f"the {what} cannot be read, what is served stays: {problem}"
    previous = _readable(stored.get("conditions"))
    generation = raw["metadata"]["generation"]
    values = [
        ConditionValue(type="Accepted", status="False", reason="InvalidSpec", message=text),
        ConditionValue(type="Ready", status="False", reason="Degraded", message=text),
        ConditionValue(type="Stalled", status="True", reason="Degraded", message=text),
    ]
    told = {value.type for value in values} | {"Reconciling"}
    status: JSON = {
        **stored,
        "schema": stored.get("schema") or COMPATIBLE_SCHEMA,
        "observedGeneration": generation,
        "phase": "Degraded",
        "message": text,
        "conditions": [
            *build_conditions(values, previous, generation, now),
            *(one for one in stored.get("conditions") or [] if one["type"] not in told),
        ],
    }
    known = {one.type: one for one in previous}
    events = (PlannedEvent(type="Warning", reason="InvalidSpec", message=text),)
    repeated = "Accepted" in known and known["Accepted"].message == text
    return Plan(status=status, events=() if repeated else events, summary=text)


def _readable(conditions: Any) -> list[Condition]:
    found = []
    for each in conditions or []:
        try:
            found.append(Condition.model_validate(each))
        except ValidationError:
            continue
    return found
