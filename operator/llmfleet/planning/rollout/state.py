"""Where a rollout is, as a value: the only reader and writer of ``status.rollout`` and its clocks.

Every state is a class of its own, so that what cannot be is not sayable: only a rollout on its way
back has a reason for it, only one between two tries has a time of the next. ``transitions`` says
which state follows which; nothing else in planning reads a field of ``status.rollout``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal, get_args

from pydantic import ValidationError

from llmfleet.api import (
    MetricResult,
    RequestsAtStart,
    RolloutSpec,
    RolloutStatus,
    unknown_settings,
)
from llmfleet.planning.snapshot import JSON

Cause = Literal["Undo", "Rollback"]
"""Why a kept revision is rolled out: a person's ``undo``, or spec went back to it."""
SUPERSEDED: Final = "Superseded"
"""Why a rollout goes back when spec asks for another revision meanwhile."""
RETRIED: Final = "Retried"
"""Why it still goes back when a person asks for a new try of it before it is back."""


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
    restarts_at_start: Mapping[str, int] = field(default_factory=dict)
    """Ends of its pods' containers before it began, by pod name."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """No rollout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """The revision that spec asks for is on its way up."""

    attempt: Attempt
    position: Position | None = None
    """None for a rollout without steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undoing:
    """A kept revision is on its way up, without steps."""

    attempt: Attempt
    cause: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Returning:
    """The rollout goes back: its revision loses its traffic to the served one."""

    attempt: Attempt
    reason: str
    """CamelCase; ``Superseded`` when nothing was wrong with it."""
    retry_at: datetime | None = None
    """When it is tried again, if the end was not its fault."""
    undo_target: str | None = None
    """Kept revision to roll out once the traffic is back."""
    position: Position | None = None
    """Where it was, in case spec asks for it again before it is back."""
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackingOff:
    """Between two tries of the revision that spec asks for."""

    attempt: Attempt
    reason: str
    retry_at: datetime | None
    """None = it was tried often enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """The record was written by a newer operator or by hand: everything is left as it is."""

    record: JSON
    """As stored."""
    revision: str | None
    problem: str
    """What cannot be read, as a sentence."""


State = Idle | Forward | Undoing | Returning | BackingOff | Unreadable
Going = Forward | Undoing
"""States of a rollout on its way up."""
WORDS: Final = {
    Forward: "Forward", Undoing: "Undoing", Returning: "Returning", BackingOff: "BackingOff",
}  # fmt: skip
"""What ``status.rollout.state`` says."""


def attempt_of(state: State) -> Attempt | None:
    """The attempt that a state is about; None outside a rollout."""
    return None if isinstance(state, Idle | Unreadable) else state.attempt


def read_state(
    record: RolloutStatus | None,
    raw: Any,
    *,
    stable: str | None,
    spec: RolloutSpec,
    now: datetime,
) -> State:
    """Read ``status.rollout``.

    A record without ``state`` is November's: one with ``aborted`` is on its way back, and the
    transition ``Returned`` tells at once whether it has arrived.

    Args:
        record: as the models read it.
        raw: the same as stored, which is kept when it cannot be read.
        stable: the served revision.
        spec: settings for a record without frozen ones.
        now: stands in for a time that is missing.
    """
    if record is None or record.revision is None or record.revision == stable:
        return Idle()
    policy, problem = _policy(record, spec)
    known = {None, *WORDS.values()}
    if record.state not in known:
        problem = f"state {record.state!r} is not one that this operator knows"
    elif record.cause not in {None, *get_args(Cause)}:
        problem = f"cause {record.cause!r} is not one that this operator knows"
    if problem is not None:
        kept = dict(raw) if isinstance(raw, dict) else {}
        return Unreadable(record=kept, revision=record.revision, problem=problem)
    attempt = Attempt(
        id=record.id or 0,
        revision=record.revision,
        policy=policy,
        plan=record.plan,
        started_at=record.started_at or now,
        progressed_at=record.progressed_at or now,
        waiting_since=record.waiting_since,
        served_since=record.served_since,
        tries=record.attempt or 0,
        restarts_at_start=record.restarts_at_start,
        metric_results=record.metric_results,
    )
    cause: Cause | None = next((each for each in get_args(Cause) if each == record.cause), None)
    if record.aborted is None:
        if cause is not None:
            return Undoing(attempt=attempt, cause=cause)
        return Forward(attempt=attempt, position=_position(record))
    if record.state == WORDS[BackingOff]:
        return BackingOff(attempt=attempt, reason=record.aborted, retry_at=record.retry_at)
    return Returning(
        attempt=attempt,
        reason=record.aborted,
        retry_at=record.retry_at,
        undo_target=record.undo_target,
        position=_position(record),
        cause=cause,
    )


def write_state(state: State) -> JSON | None:
    """``status.rollout`` of a state; None outside a rollout.

    The fields that November's operator knows say the same as ``state``, so it can go on from here.
    """
    if isinstance(state, Idle):
        return None
    if isinstance(state, Unreadable):
        return state.record
    attempt, position = state.attempt, None
    record = RolloutStatus(
        state=WORDS[type(state)],
        id=attempt.id,
        revision=attempt.revision,
        plan=attempt.plan,
        started_at=attempt.started_at,
        progressed_at=attempt.progressed_at,
        attempt=attempt.tries or None,
    )
    if isinstance(state, BackingOff):
        ended = {"aborted": state.reason, "retry_at": state.retry_at}
        return _dump(record.model_copy(update=ended))
    under_way = {
        "waiting_since": attempt.waiting_since,
        "served_since": attempt.served_since,
        "restarts_at_start": dict(attempt.restarts_at_start),
    }
    record = record.model_copy(update=under_way)
    match state:
        case Forward():
            position = state.position
            record = record.model_copy(update={"metric_results": attempt.metric_results})
        case Undoing():
            record = record.model_copy(update={"cause": state.cause})
        case Returning():
            position = state.position
            back = {
                "aborted": state.reason, "retry_at": state.retry_at, "cause": state.cause,
                "undo_target": state.undo_target,
            }  # fmt: skip
            record = record.model_copy(update=back)
    if position is not None:
        where = {
            "step": position.step, "step_started_at": position.started_at,
            "requests_at_start": position.counted,
        }  # fmt: skip
        record = record.model_copy(update=where)
    return _dump(record)


def begin(
    revision: str,
    *,
    number: int,
    policy: RolloutSpec,
    cause: Cause | None,
    stable: str | None,
    now: datetime,
    tries: int = 0,
    restarts: Mapping[str, int] | None = None,
) -> Going:
    """The first state of a new attempt.

    Args:
        revision: to roll out.
        number: of the attempt.
        policy: spec's settings, frozen from here on.
        cause: of a rollout to a kept revision, which has no steps.
        stable: the served revision; without one there is nothing to compare with, so no steps.
        now: the time of the decision.
        tries: earlier ones of this revision that ended without its fault.
        restarts: of its pods so far.
    """
    plan = freeze(policy, steps=cause is None)
    frozen = RolloutSpec.model_validate(plan)
    attempt = Attempt(
        id=number, revision=revision, policy=frozen, plan=plan, started_at=now,
        progressed_at=now, tries=tries, restarts_at_start=restarts or {},
    )  # fmt: skip
    if cause is not None:
        return Undoing(attempt=attempt, cause=cause)
    stepwise = stable is not None and policy.strategy != "RollingUpdate"
    return Forward(attempt=attempt, position=Position() if stepwise else None)


def tick(attempt: Attempt, now: datetime, *, waits: bool, progress: bool, served: bool) -> Attempt:
    """Go on with the clocks of an attempt.

    Args:
        attempt: as recorded.
        now: the time of the decision.
        waits: for capacity, time, samples, a person or the first replica: the deadline stands
            still, and ``progressed_at`` is moved by the time waited once that is over.
        progress: a step was left, or more traffic moves where it should.
        served: its first requests are really served.
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


def _policy(record: RolloutStatus, spec: RolloutSpec) -> tuple[RolloutSpec, str | None]:
    """The frozen settings, or what of them cannot be read."""
    if record.plan is None:  # begun before there were any: it rolled without steps
        return spec.model_copy(update={"strategy": "RollingUpdate"}), None
    unknown = list(unknown_settings(record.plan, "plan"))
    unknown += [
        f"plan.steps[{index}]"
        for index, step in enumerate(record.plan.get("steps") or ())
        if not isinstance(step, dict) or len(step) != 1
    ]
    if unknown:
        return spec, f"it holds what this operator does not know: {', '.join(unknown[:5])}"
    try:
        return RolloutSpec.model_validate(record.plan), None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return spec, f"plan.{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _position(record: RolloutStatus) -> Position | None:
    if record.step is None:
        return None
    return Position(
        step=record.step, started_at=record.step_started_at, counted=record.requests_at_start
    )


def _dump(record: RolloutStatus) -> JSON:
    body: JSON = record.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {key: value for key, value in body.items() if value not in ([], {})}
