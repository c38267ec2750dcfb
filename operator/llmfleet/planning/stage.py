"""What every stage of a decision returns; ``decide`` only merges it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from llmfleet.planning.plan import PlannedEvent
from llmfleet.planning.snapshot import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionValue:
    """One condition, before it gets its time."""

    type: str
    status: str
    """True, False or Unknown."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a stage adds to the plan."""

    conditions: tuple[ConditionValue, ...] = ()
    events: tuple[PlannedEvent, ...] = ()
    due: tuple[datetime, ...] = ()
    """When time alone may change what it decided."""
    status: Mapping[str, object] = field(default_factory=dict)
    """Its part of the status; no two stages write the same key."""


def merge(stages: Iterable[Stage]) -> Stage:
    """All stages as one, in their order.

    Raises:
        ValueError: two stages write the same key of the status.
    """
    found = tuple(stages)
    status: JSON = {}
    for stage in found:
        twice = set(status) & set(stage.status)
        if twice:
            raise ValueError(f"two stages write {', '.join(sorted(twice))} of the status")
        status |= stage.status
    return Stage(
        conditions=tuple(each for stage in found for each in stage.conditions),
        events=tuple(each for stage in found for each in stage.events),
        due=tuple(each for stage in found for each in stage.due),
        status=status,
    )


def seconds_until(due: Iterable[datetime], now: datetime) -> float | None:
    """Seconds until the soonest of these times, a second later to be sure; None without any."""
    ahead = [(when - now).total_seconds() for when in due if when > now]
    return max(1.0, min(ahead) + 1.0) if ahead else None
