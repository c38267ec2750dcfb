"""``status.rollout``: the only reader and writer of a rollout's state and its clocks."""

from __future__ import annotations

from datetime import datetime
from typing import Any, get_args

from pydantic import ValidationError

from llmfleet.api import (
    RolloutSpec,
    RolloutStatus,
    unknown_settings,
)
from llmfleet.planning.rollout.attempt import Attempt, Position
from llmfleet.planning.rollout.state import (
    WORDS,
    BackingOff,
    Cause,
    Forward,
    Idle,
    Restarting,
    Returning,
    State,
    Undoing,
    Unreadable,
)
from llmfleet.planning.snapshot import JSON


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
    if record is None or record.revision in {None, stable}:
        return _without_rollout(record, stable)
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
        ended_before=record.ended_before,
        trouble_since=record.trouble_since,
        metric_results=record.metric_results,
    )
    return _of_attempt(record, attempt)


def _of_attempt(
    record: RolloutStatus, attempt: Attempt
) -> Forward | Undoing | Returning | BackingOff:
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
    if isinstance(state, Restarting):
        # Without a revision: nothing is being rolled out, for whoever reads only that.
        return _dump(RolloutStatus(state=WORDS[Restarting], started_at=state.since))
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
        "ended_before": dict(attempt.ended_before),
        "trouble_since": attempt.trouble_since,
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


def _without_rollout(record: RolloutStatus | None, stable: str | None) -> Idle | Restarting:
    """A record about the served revision: a restart, or a rollout that is over."""
    if record is None or stable is None or record.started_at is None:
        return Idle()
    if record.revision is not None or record.state != WORDS[Restarting]:
        return Idle()
    return Restarting(revision=stable, since=record.started_at)


def _policy(record: RolloutStatus, spec: RolloutSpec) -> tuple[RolloutSpec, str | None]:
    """The frozen settings, or what of them cannot be read."""
    if record.plan is None:  # begun before there were any: it rolled without steps
        return spec.model_copy(update={"strategy": "RollingUpdate"}), None
    unknown, steps = list(unknown_settings(record.plan, "plan")), record.plan.get("steps")
    unknown += [
        f"plan.steps[{index}]"
        for index, step in enumerate(steps if isinstance(steps, list) else ())
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
