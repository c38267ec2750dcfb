"""One try to roll a revision out: its frozen settings, its clocks, and where among its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from llmfleet.api import MetricResult, RequestsAtStart, RolloutSpec
from llmfleet.planning.snapshot import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to roll a revision out: its number, its settings as frozen, its clocks."""

    id: int
    """Rises by one with every attempt of the resource."""
    revision: str
    policy: RolloutSpec
    """The settings frozen when it began."""
    plan: JSON | None
    """The same as recorded; None = begun before there were any."""
    started_at: datetime
    progressed_at: datetime
    """When it last made progress; the progress deadline counts from here."""
    waiting_since: datetime | None = None
    """Since when it waits for capacity, time or a person, and its deadline stands still."""
    served_since: datetime | None = None
    """When its first requests were really served."""
    tries: int = 0
    """Earlier tries of this revision that ended without its fault."""
    ended_before: Mapping[str, int] = field(default_factory=dict)
    """Ends of its pods' containers that do not count, by pod name (``failures.ends_before``)."""
    trouble_since: datetime | None = None
    """Since when its pods show what is not its fault (``failures.is_troubled``)."""
    metric_results: tuple[MetricResult, ...] = ()
    """The verdicts recorded last."""

    @property
    def stepwise(self) -> bool:
        """Whether it goes in steps and is judged."""
        return self.policy.strategy in {"Canary", "BlueGreen"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a rollout with steps is."""

    step: int = 0
    """Index of the step under way; the number of steps = all are done."""
    started_at: datetime | None = None
    """When its clock started: what the step commands is really served. None = not yet."""
    counted: RequestsAtStart | None = None
    """Requests of the attempt so far when the clock started; what came later is the step's own."""


def tick(
    attempt: Attempt, now: datetime, *, waits: bool, progress: bool, served: bool, troubled: bool
) -> Attempt:
    """Go on with the clocks of an attempt.

    Args:
        attempt: as recorded.
        now: the time of the decision.
        waits: for capacity, time, samples, a person or the first replica: the deadline stands
            still, and ``progressed_at`` is moved by the time waited once that is over.
        progress: a step was left, or more traffic moves where it should.
        served: its first requests are really served.
        troubled: its pods show what is not its fault.
    """
    progressed, waiting = attempt.progressed_at, attempt.waiting_since
    if waits:
        waiting = waiting or now
    elif waiting is not None:
        progressed, waiting = progressed + (now - waiting), None
    return replace(
        attempt,
        progressed_at=now if progress else progressed,
        waiting_since=waiting,
        served_since=attempt.served_since or (now if served else None),
        trouble_since=(attempt.trouble_since or now) if troubled else None,
    )


def freeze(policy: RolloutSpec, *, steps: bool) -> JSON:
    """The settings of a rollout that begins, its steps spelled out.

    Args:
        policy: spec's.
        steps: False for a rollout to a kept revision, which rolls without.
    """
    body: JSON = policy.model_dump(mode="json", by_alias=True, exclude_none=True)
    if not steps:
        body.pop("steps", None)
        if policy.strategy == "Canary":
            body["strategy"] = "RollingUpdate"
    elif policy.strategy == "Canary":
        body["steps"] = [
            each.model_dump(mode="json", by_alias=True, exclude_none=True)
            for each in policy.effective_steps
        ]
    return body
