"""One decision about the rollout: what people and pods ask for, and the state that follows.

Inputs are taken in a fixed order: acts, then triggers, then the step under way, then spec. Each is
put to the table of ``transitions``; what comes out is recorded, and ``split`` acts on it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from llmfleet.planning.advice import go_on_or_back, resume
from llmfleet.planning.facts.read import Facts, give_up_silent
from llmfleet.planning.rollout.acts import Acts, decide_acts
from llmfleet.planning.rollout.arriving import take_spec
from llmfleet.planning.rollout.attempt import Position
from llmfleet.planning.rollout.consistency import check_consistency
from llmfleet.planning.rollout.failures import Failure
from llmfleet.planning.rollout.gates import why_held
from llmfleet.planning.rollout.inputs import (
    GoBack,
    Promote,
    Restart,
    Retry,
    UndoTo,
)
from llmfleet.planning.rollout.judging import (
    build_step_context,
    count_from_start,
    describe_failed,
    judge,
)
from llmfleet.planning.rollout.machine import (
    FAILED_MEANWHILE,
    NOWHERE,
    Advance,
    Machine,
)
from llmfleet.planning.rollout.record import read_state
from llmfleet.planning.rollout.served import (
    stable_revision,
)
from llmfleet.planning.rollout.state import (
    BackingOff,
    Going,
    Returning,
    State,
    Undoing,
    Unreadable,
    attempt_of,
)
from llmfleet.planning.rollout.steps.following import (
    follow,
    not_counted,
    step_due,
    step_failure,
    waits_for_person,
)
from llmfleet.planning.rollout.triggers import find_failure
from llmfleet.planning.rollout.triggers.trigger import Rising


def decide_advance(facts: Facts, blocked: str | None, now: datetime) -> tuple[Facts, Advance]:
    """Decide where the rollout goes from here.

    Args:
        facts: what is observed.
        blocked: why no revision may be rolled out at all, or None.
        now: the time of the decision.

    Returns:
        The facts, with routers given up that a rollout on its way back waits for no longer; and
        the decision.
    """
    stable = stable_revision(facts)
    status = facts.deployment.status
    record = facts.stored_rollout
    spec = facts.deployment.spec.rollout
    state = read_state(status.rollout, record, stable=stable, spec=spec, now=now)
    state = check_consistency(facts, state)
    attempt = attempt_of(state)
    if attempt is not None and isinstance(state, Returning | BackingOff):
        facts = give_up_silent(facts, attempt.revision, attempt.progressed_at, now)
    machine = Machine(facts, state, stable, now)
    held = why_held(facts, spec, stable, blocked, changes=True)
    found = Advance(
        state=state, state_before=state, stable=stable, spec_revision=facts.spec_revision,
        acts=decide_acts(facts, state, stable, held), rejected=facts.rejected,
    )  # fmt: skip
    _take_person(machine, found.acts)
    found = _take_undo(machine, found)
    found = _take_triggers(machine, found)
    found = _take_steps(machine, found)
    found = take_spec(machine, found, blocked)
    return facts, _conclude(machine, found)


def _conclude(machine: Machine, found: Advance) -> Advance:
    """What became of the attempt that was under way, and which one is now."""
    before, after = found.state_before, machine.state
    was, now_at = attempt_of(before), attempt_of(after)
    same = was is not None and now_at is not None and was.id == now_at.id
    ends = isinstance(before, Going) and not (isinstance(after, Going) and same)
    return replace(
        found,
        state=after,
        rejected=dict(machine.rejected),
        started=now_at.revision if now_at and isinstance(after, Going) and not same else None,
        ended=was.revision if was and ends and found.promoted is None else None,
        due=after.retry_at if isinstance(after, BackingOff) else found.due,
    )


def _revision(state: State) -> str | None:
    attempt = attempt_of(state)
    return attempt.revision if attempt is not None and not isinstance(state, BackingOff) else None


def _take_person(machine: Machine, acts: Acts) -> None:
    retried = acts.run.get("retry")
    if retried is not None:
        machine.rejected.pop(retried, None)
        machine.put(Retry(revision=retried))
    if "restart" in acts.run:
        machine.put(Restart())


def _take_undo(machine: Machine, found: Advance) -> Advance:
    """A kept revision is asked for; to the served one in mid-rollout, a trigger goes back."""
    asked, stable = found.acts.run.get("undo"), machine.stable
    if asked is None or (asked == stable and isinstance(machine.state, Going)):
        return found
    going = isinstance(machine.state, Going | Returning)
    # The revision under way may be the one asked for, when spec no longer asks for it.
    given_up = _revision(machine.state) if isinstance(machine.state, Going) else None
    failure = Failure(
        reason="UserUndo",
        message=f"undone by hand: {asked} was asked for",
        rejected=given_up != asked,
    )
    if given_up is not None and given_up != asked:
        machine.reject(given_up, failure.reason)
    machine.reject(machine.facts.spec_revision, failure.reason)
    machine.put(UndoTo(revision=asked))
    return replace(found, failure=failure if going or asked != stable else None)


def _take_triggers(machine: Machine, found: Advance) -> Advance:
    """Whoever asks the rollout to go back."""
    state, stable = machine.state, machine.stable
    if isinstance(state, Unreadable):
        return _abort_unreadable(machine, found)
    if not isinstance(state, Going) or stable is None or found.failure is not None:
        return found
    judgement = judge(machine.facts, state, stable)
    failure = find_failure(
        Rising(
            facts=machine.facts, attempt=state.attempt, stable=stable, acts=found.acts,
            judgement=judgement, now=machine.now,
        )
    )  # fmt: skip
    found = replace(found, judgement=judgement)
    return found if failure is None else _go_back(machine, found, failure)


def _abort_unreadable(machine: Machine, found: Advance) -> Advance:
    revision = found.acts.run.get("abort")
    if revision is None:
        return found
    failure = Failure(reason="UserAbort", message="aborted by hand", rejected=True)
    return _go_back(machine, found, failure)


def _go_back(machine: Machine, found: Advance, failure: Failure) -> Advance:
    state = machine.state
    revision = state.revision if isinstance(state, Unreadable) else _revision(state)
    machine.put(GoBack(failure=failure))
    if machine.state is state:
        acts = found.acts.withdraw("abort", NOWHERE).withdraw("undo", NOWHERE)
        return replace(found, acts=acts)
    if failure.rejected and revision is not None:
        machine.reject(revision, failure.reason)
    if failure.reason == "UserUndo" and machine.facts.spec_revision != machine.stable:
        machine.reject(machine.facts.spec_revision, failure.reason)
    said = failure.message + describe_failed(machine.facts.requests.value, revision or "")
    acts = found.acts.withdraw("promote", FAILED_MEANWHILE.format(failure.reason))
    return replace(found, failure=replace(failure, message=said), acts=acts)


def _take_steps(machine: Machine, found: Advance) -> Advance:
    """The step under way: what ends it, and who is waited for."""
    state, stable, now = machine.state, machine.stable, machine.now
    if not isinstance(state, Going) or stable is None or found.failure is not None:
        return found
    judgement = found.judgement
    if isinstance(state, Undoing) or not state.attempt.stepwise or judgement is None:
        if not found.acts.paused:
            return found
        return replace(found, paused=resume(machine.facts.deployment), by_annotation=True)
    state = replace(state, position=state.position or Position())
    context, position = build_step_context(machine.facts, state, stable, judgement, now)
    machine.state = replace(state, position=position)
    found = replace(found, steps=context, judgement=context.shown(position))
    if found.acts.paused:
        return replace(found, paused=resume(machine.facts.deployment), by_annotation=True)
    if "promote" in found.acts.run:
        machine.put(Promote(full=found.acts.full))
        position = machine.state.position or position
        # The requests so far are those of the step that was left.
        context = replace(context, own_judgement=not_counted(context.judgement))
    position = follow(context, position, now)
    failure = step_failure(context, position, now)
    if failure is not None:
        return replace(_go_back(machine, found, failure), steps=None)
    position = count_from_start(machine.facts, position, stable, state.attempt.revision)
    machine.state = replace(state, position=position)
    return replace(
        found,
        due=step_due(context, position),
        paused=_ask_person(machine, waits_for_person(context, position, now), position),
    )


def _ask_person(machine: Machine, why: str | None, position: Position) -> str | None:
    """What a person can do about a step that waits for one."""
    revision = _revision(machine.state)
    if why is None or revision is None:
        return None
    ask = go_on_or_back(machine.facts.deployment, revision, position.step)
    return f"{why}: {ask}" if why else ask
