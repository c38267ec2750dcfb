"""Which state of a rollout follows which: one table, and nothing else moves a rollout.

A pair of state and input without a row changes nothing. No row leads up to a rejected revision:
``Start`` and ``UndoTo`` are only ever given others, and ``begin`` is the one way up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from llmfleet.planning.rollout.attempt import Attempt, Position
from llmfleet.planning.rollout.failures import GENTLE, retry_time
from llmfleet.planning.rollout.inputs import (
    Context,
    GoBack,
    Input,
    Promote,
    Restart,
    Restarted,
    Resume,
    Retry,
    Returned,
    Served,
    Start,
    Supersede,
    UndoTo,
)
from llmfleet.planning.rollout.state import (
    RETRIED,
    SUPERSEDED,
    BackingOff,
    Cause,
    Forward,
    Idle,
    Restarting,
    Returning,
    State,
    Undoing,
    Unreadable,
    begin,
)

Handler = Callable[[Any, Any, Context], State]


def _start(state: Idle | BackingOff | Restarting, asked: Start, context: Context) -> State:
    tries = state.attempt.tries if isinstance(state, BackingOff) else 0
    return _begin(asked.revision, asked.cause, context, tries=tries)


def _begin(revision: str, cause: Cause | None, context: Context, *, tries: int = 0) -> State:
    return begin(
        revision, number=context.next_id, policy=context.spec, cause=cause,
        stable=context.stable, now=context.now, tries=tries,
    )  # fmt: skip


def _promote(state: Forward, asked: Promote, context: Context) -> State:
    del context
    if state.position is None:
        return state
    last = len(state.attempt.policy.effective_steps)
    step = last if asked.full else min(last, state.position.step + 1)
    return replace(state, position=Position(step=step))


def _go_back(state: Forward | Undoing, asked: GoBack, context: Context) -> State:
    """Rejected, or aborted and tried again later; from a rejected revision to another good one."""
    failure = asked.failure
    undone = isinstance(state, Undoing) and context.stable in context.rejected
    if undone or not context.way_back:
        return _give_up(state, context)
    tries = 0 if failure.rejected else state.attempt.tries + 1
    return Returning(
        attempt=_turned(replace(state.attempt, tries=tries), context),
        reason=failure.reason,
        retry_at=None if failure.rejected else retry_time(tries, context.now),
        position=state.position if isinstance(state, Forward) else None,
        cause=state.cause if isinstance(state, Undoing) else None,
    )


def _give_up(state: Forward | Undoing, context: Context) -> State:
    """Nothing leads back to the rejected revision: the next good one, or the same one further."""
    if context.other_good is None:
        return state
    return _begin(context.other_good, "Undo", context)


def _undo_idle(state: Idle | BackingOff | Restarting, asked: UndoTo, context: Context) -> State:
    del state
    return Idle() if asked.revision == context.stable else _begin(asked.revision, "Undo", context)


def _undo_going(state: Forward | Undoing, asked: UndoTo, context: Context) -> State:
    """First back to the served revision; there are never three arms."""
    if not context.way_back:
        return _begin(asked.revision, "Undo", context)
    return Returning(
        attempt=_turned(replace(state.attempt, tries=0), context),
        reason="UserUndo",
        undo_target=_target(asked, context),
        cause=state.cause if isinstance(state, Undoing) else None,
    )


def _undo_returning(state: Returning, asked: UndoTo, context: Context) -> State:
    if not context.way_back:
        return _begin(asked.revision, "Undo", context)
    attempt = replace(state.attempt, tries=0)
    reason = "UserUndo" if state.reason == SUPERSEDED else state.reason
    target = _target(asked, context)
    return replace(state, attempt=attempt, reason=reason, retry_at=None, undo_target=target)


def _target(asked: UndoTo, context: Context) -> str | None:
    return None if asked.revision == context.stable else asked.revision


def _retry_returning(state: Returning, asked: Retry, context: Context) -> State:
    """It goes on going back, and is then tried anew: with clocks and evidence of its own.

    With nobody there to go back to it is tried anew where it is: neither would ever end.
    """
    if asked.revision != state.attempt.revision:
        return state
    if not context.carried_back:
        return _begin_where_it_is(state, context)
    attempt = replace(state.attempt, tries=0)
    return replace(state, attempt=attempt, reason=RETRIED, retry_at=None, undo_target=None)


def _begin_where_it_is(state: Returning, context: Context) -> State:
    begun = _begin(state.attempt.revision, state.cause, context)
    if not isinstance(begun, Forward) or begun.position is None or state.position is None:
        return begun
    last = len(begun.attempt.policy.effective_steps)
    return replace(begun, position=Position(step=min(last, state.position.step)))


def _retry_waiting(state: BackingOff, asked: Retry, context: Context) -> State:
    del context
    return Idle() if asked.revision == state.attempt.revision else state


def _supersede(state: Forward | Undoing, asked: Supersede, context: Context) -> State:
    del asked
    if context.stable is None:
        return Idle()  # nothing to go back to: the next one takes over
    if not context.way_back:
        given_up = _give_up(state, context)
        return Idle() if given_up is state else given_up
    return Returning(
        attempt=_turned(state.attempt, context),
        reason=SUPERSEDED,
        position=state.position if isinstance(state, Forward) else None,
        cause=state.cause if isinstance(state, Undoing) else None,
    )


def _resume(state: Returning, asked: Resume, context: Context) -> State:
    del asked
    attempt = replace(state.attempt, progressed_at=context.now)
    if state.cause is not None:
        return Undoing(attempt=attempt, cause=state.cause)
    return Forward(attempt=attempt, position=state.position)


def _returned(state: Returning, asked: Returned, context: Context) -> State:
    del asked
    target = state.undo_target
    if target is not None and target in context.kept and target not in context.rejected:
        return _begin(target, "Undo", context)
    rejected = state.attempt.revision in context.rejected
    if rejected or state.reason in {SUPERSEDED, RETRIED} or state.cause == "Undo":
        return Idle()
    # What ended for any other reason waits for its time, or, where none is known, for a person.
    return BackingOff(attempt=state.attempt, reason=state.reason, retry_at=state.retry_at)


def _restart(state: Idle | Restarting, asked: Restart, context: Context) -> State:
    del asked
    if context.stable is None:
        return state
    return Restarting(revision=context.stable, since=context.now)


def _idle(state: State, asked: Input, context: Context) -> State:
    del state, asked, context
    return Idle()


def _abandon(state: Unreadable, asked: GoBack, context: Context) -> State:
    """A person may always go back, whatever the record says."""
    if state.revision is None:
        return Idle()
    attempt = Attempt(
        id=context.next_id, revision=state.revision, policy=context.spec, plan=None,
        started_at=context.now, progressed_at=context.now,
    )  # fmt: skip
    return Returning(attempt=attempt, reason=asked.failure.reason)


def _turned(attempt: Attempt, context: Context) -> Attempt:
    return replace(attempt, progressed_at=context.now)


TRANSITIONS: Final[Mapping[tuple[type[State], type[Input]], Handler]] = {
    (Idle, Start): _start,
    (Idle, UndoTo): _undo_idle,
    (Idle, Restart): _restart,
    (Restarting, Restart): _restart,
    (Restarting, Restarted): _idle,
    (Restarting, Start): _start,
    (Restarting, UndoTo): _undo_idle,
    (Forward, Promote): _promote,
    (Forward, GoBack): _go_back,
    (Forward, UndoTo): _undo_going,
    (Forward, Supersede): _supersede,
    (Forward, Served): _idle,
    (Undoing, GoBack): _go_back,
    (Undoing, UndoTo): _undo_going,
    (Undoing, Supersede): _supersede,
    (Undoing, Served): _idle,
    (Returning, UndoTo): _undo_returning,
    (Returning, Retry): _retry_returning,
    (Returning, Resume): _resume,
    (Returning, Returned): _returned,
    (BackingOff, Start): _start,
    (BackingOff, UndoTo): _undo_idle,
    (BackingOff, Retry): _retry_waiting,
    (BackingOff, Supersede): _idle,
    (Unreadable, GoBack): _abandon,
}


def transition(state: State, asked: Input, context: Context) -> State:
    """The state that follows; the same one where the table has no row."""
    handler = TRANSITIONS.get((type(state), type(asked)))
    return state if handler is None else handler(state, asked, context)


def leaves_at_once(state: Returning) -> bool:
    """Whether traffic leaves whether or not stable can carry it; routers shed the excess."""
    return state.reason not in GENTLE
