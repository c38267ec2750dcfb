"""One decision about the rollout: what people and pods ask for, and the state that follows.

Inputs are taken in a fixed order: acts, then triggers, then the step under way, then spec. Each is
put to the table of ``transitions``; what comes out is recorded, and ``split`` acts on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from llmfleet.planning.analysis.judge import Judgement
from llmfleet.planning.facts.read import Facts, give_up_silent
from llmfleet.planning.rollout.acts import Acts, decide_acts
from llmfleet.planning.rollout.consistency import believe
from llmfleet.planning.rollout.failures import Failure
from llmfleet.planning.rollout.gates import may_promote, why_held, why_not_begun
from llmfleet.planning.rollout.judging import (
    build_step_context,
    count_from_start,
    describe_failed,
    judge,
)
from llmfleet.planning.rollout.served import (
    other_good_revision,
    stable_revision,
    wanted_revision,
)
from llmfleet.planning.rollout.state import (
    SUPERSEDED,
    BackingOff,
    Cause,
    Going,
    Idle,
    Position,
    Returning,
    State,
    Undoing,
    Unreadable,
    attempt_of,
    read_state,
)
from llmfleet.planning.rollout.steps.following import (
    follow,
    step_due,
    step_failure,
    waits_for_person,
)
from llmfleet.planning.rollout.steps.kind import StepContext
from llmfleet.planning.rollout.transitions import (
    Context,
    GoBack,
    Input,
    Promote,
    Resume,
    Retry,
    Returned,
    Served,
    Start,
    Supersede,
    UndoTo,
    transition,
)
from llmfleet.planning.rollout.triggers import find_failure
from llmfleet.planning.rollout.triggers.trigger import Rising

PAUSED_BY_ANNOTATION: Final = "remove the annotation llmfleet.dev/pause to go on"
FAILED_MEANWHILE: Final = "came when the rollout had just failed ({}): it goes back instead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Where the rollout is after this decision, and why."""

    state: State
    stable: str | None
    """The served revision; the new one in the decision that promotes it."""
    acts: Acts
    rejected: Mapping[str, str]
    """Every rejected hash → reason, for memory."""
    spec_revision: str
    """The hash that spec asks for."""
    state_before: State
    """As recorded."""
    failure: Failure | None = None
    """Found in this decision."""
    promoted: str | None = None
    """Set in the one decision that makes a revision the served one."""
    started: str | None = None
    """Set in the one decision that starts an attempt."""
    ended: str | None = None
    """Set in the one decision in which an attempt turns back or is given up."""
    steps: StepContext | None = None
    """What the steps depend on; None for a rollout without, or one that goes back."""
    judgement: Judgement | None = None
    """What is told of its requests."""
    paused: str | None = None
    """What a person has to do for the rollout to go on."""
    by_annotation: bool = False
    """The pause is the annotation's: nothing moves forward."""
    held: str | None = None
    """Why nothing new may be rolled out."""
    due: datetime | None = None
    """When time alone ends the step, or the wait for another try."""

    @property
    def target(self) -> str | None:
        """The revision on its way up or back; None outside a rollout."""
        if isinstance(self.state, Unreadable):
            return self.state.revision
        attempt = attempt_of(self.state)
        return None if attempt is None or isinstance(self.state, BackingOff) else attempt.revision


class _Machine:
    """The state while one decision's inputs are put to the table, and the rejections they make."""

    def __init__(self, facts: Facts, state: State, stable: str | None, now: datetime) -> None:
        self.facts, self.state, self.stable, self.now = facts, state, stable, now
        self.rejected: dict[str, str] = dict(facts.rejected)

    def put(self, asked: Input) -> None:
        """Apply one input."""
        self.state = transition(self.state, asked, self._context())

    def reject(self, revision: str, reason: str) -> None:
        """No way up leads to it from here on."""
        self.rejected.setdefault(revision, reason)

    def wanted(self) -> tuple[str | None, Cause | None]:
        """What shall be served in the end, as things are."""
        return wanted_revision(self.facts, self.state, self.stable, self.rejected, self.now)

    def _context(self) -> Context:
        attempt, status = attempt_of(self.state), self.facts.deployment.status
        target = attempt.revision if attempt is not None else None
        recorded = (status.rollout.id or 0) if status.rollout is not None else 0
        pods = [pod for arm in self.facts.arms.values() for pod in arm.live if pod.restarts]
        return Context(
            now=self.now,
            stable=self.stable,
            spec=self.facts.deployment.spec.rollout,
            next_id=1 + max(self.facts.memory.rollout_id, recorded),
            rejected=frozenset(self.rejected),
            other_good=other_good_revision(self.facts, (target, self.stable), self.rejected),
            restarts={pod.name: pod.restarts for pod in pods},
        )


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
    state = believe(facts, state)
    attempt = attempt_of(state)
    if attempt is not None and isinstance(state, Returning | BackingOff):
        facts = give_up_silent(facts, attempt.revision, attempt.progressed_at, now)
    machine = _Machine(facts, state, stable, now)
    found = Advance(
        state=state, state_before=state, stable=stable, spec_revision=facts.spec_revision,
        acts=decide_acts(facts, state, stable), rejected=facts.rejected,
    )  # fmt: skip
    _lift(machine, found.acts)
    found = _take_undo(machine, found)
    found = _take_triggers(machine, found)
    found = _take_steps(machine, found)
    found = _take_spec(machine, found, blocked)
    return facts, _conclude(machine, found)


def _conclude(machine: _Machine, found: Advance) -> Advance:
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


def _lift(machine: _Machine, acts: Acts) -> None:
    retried = acts.run.get("retry")
    if retried is not None:
        machine.rejected.pop(retried, None)
        machine.put(Retry(revision=retried))


def _take_undo(machine: _Machine, found: Advance) -> Advance:
    """A kept revision is asked for; to the served one in mid-rollout, a trigger goes back."""
    asked, stable = found.acts.run.get("undo"), machine.stable
    if asked is None or (asked == stable and isinstance(machine.state, Going)):
        return found
    going = isinstance(machine.state, Going | Returning)
    failure = Failure(
        reason="UserUndo", message=f"undone by hand: {asked} was asked for", rejected=True
    )
    if isinstance(machine.state, Going):
        machine.reject(machine.state.attempt.revision, failure.reason)
    machine.reject(machine.facts.spec_revision, failure.reason)
    machine.put(UndoTo(revision=asked))
    return replace(found, failure=failure if going or asked != stable else None)


def _take_triggers(machine: _Machine, found: Advance) -> Advance:
    """Whoever asks the rollout to go back."""
    state, stable = machine.state, machine.stable
    if isinstance(state, Unreadable):
        return _abort_unreadable(machine, found)
    if not isinstance(state, Going) or stable is None or found.failure is not None:
        return found
    judgement = judge(machine.facts, state, stable, machine.now)
    failure = find_failure(
        Rising(
            facts=machine.facts, attempt=state.attempt, stable=stable, acts=found.acts,
            judgement=judgement, now=machine.now,
        )
    )  # fmt: skip
    found = replace(found, judgement=judgement)
    return found if failure is None else _go_back(machine, found, failure)


def _abort_unreadable(machine: _Machine, found: Advance) -> Advance:
    revision = found.acts.run.get("abort")
    if revision is None:
        return found
    failure = Failure(reason="UserAbort", message="aborted by hand", rejected=True)
    return _go_back(machine, found, failure)


def _go_back(machine: _Machine, found: Advance, failure: Failure) -> Advance:
    state = machine.state
    revision = state.revision if isinstance(state, Unreadable) else _revision(state)
    machine.put(GoBack(failure=failure))
    if machine.state is state:  # nowhere to go back to
        return found
    if failure.rejected and revision is not None:
        machine.reject(revision, failure.reason)
    if failure.reason == "UserUndo" and machine.facts.spec_revision != machine.stable:
        machine.reject(machine.facts.spec_revision, failure.reason)
    said = failure.message + describe_failed(machine.facts.requests, revision or "")
    acts = found.acts.withdraw("promote", FAILED_MEANWHILE.format(failure.reason))
    return replace(found, failure=replace(failure, message=said), acts=acts)


def _take_steps(machine: _Machine, found: Advance) -> Advance:
    """The step under way: what ends it, and who is waited for."""
    state, stable, now = machine.state, machine.stable, machine.now
    if not isinstance(state, Going) or stable is None or found.failure is not None:
        return found
    judgement = found.judgement
    if isinstance(state, Undoing) or not state.attempt.stepwise or judgement is None:
        if not found.acts.paused:
            return found
        return replace(found, paused=PAUSED_BY_ANNOTATION, by_annotation=True)
    state = replace(state, position=state.position or Position())
    context, position = build_step_context(machine.facts, state, stable, judgement, now)
    machine.state = replace(state, position=position)
    found = replace(found, steps=context, judgement=context.shown(position))
    if found.acts.paused:
        return replace(found, paused=PAUSED_BY_ANNOTATION, by_annotation=True)
    if "promote" in found.acts.run:
        machine.put(Promote(full=found.acts.full))
        position = machine.state.position or position
    position = follow(context, position, now)
    failure = step_failure(context, position, now)
    if failure is not None:
        return replace(_go_back(machine, found, failure), steps=None)
    position = count_from_start(machine.facts, position, stable, state.attempt.revision)
    machine.state = replace(state, position=position)
    return replace(
        found,
        due=step_due(context, position),
        paused=waits_for_person(context, position, now),
    )


def _take_spec(machine: _Machine, found: Advance, blocked: str | None) -> Advance:
    """What spec asks for: goes on, goes back, or begins."""
    facts, state = machine.facts, machine.state
    if isinstance(state, Unreadable):
        return replace(found, held=_unreadable_sentence(state))
    if isinstance(state, Going):
        target = state.attempt.revision
        if may_promote(facts, state, machine.rejected, stopped=found.by_annotation):
            machine.put(Served())
            return replace(found, promoted=target, stable=target)
        changes = machine.wanted()[0] != target
        held = why_held(facts, state.attempt.policy, machine.stable, blocked, changes=True)
        if held is not None:
            return replace(found, held=held)
        if changes:
            machine.put(Supersede())
    _arrive(machine, blocked)
    if not isinstance(machine.state, Idle | BackingOff):
        return found
    return _begin_next(machine, found, blocked)


def _unreadable_sentence(state: Unreadable) -> str:
    text = f"the rollout in status cannot be read ({state.problem}), so everything stays as it is"
    fix = "upgrade the operator if a newer one wrote it, or correct status"
    if state.revision is not None:
        fix += f", or annotate llmfleet.dev/abort: {state.revision}@TOKEN to go back"
    return f"{text}: {fix}"


def _arrive(machine: _Machine, blocked: str | None) -> None:
    """A rollout on its way back is back, or asked for again before."""
    facts, state = machine.facts, machine.state
    if isinstance(state, Returning):
        target = state.attempt.revision
        again = state.reason == SUPERSEDED and state.undo_target is None
        if again and machine.wanted()[0] == target:
            machine.put(Resume())
        elif not facts.reaches(target) and facts.may_shrink:
            waits = state.undo_target is not None and (blocked is not None or not facts.replicas)
            if not waits:
                machine.put(Returned())
    elif isinstance(state, BackingOff) and (
        state.attempt.revision != facts.spec_revision or facts.spec_revision in machine.rejected
    ):
        machine.put(Supersede())


def _begin_next(machine: _Machine, found: Advance, blocked: str | None) -> Advance:
    facts, stable = machine.facts, machine.stable
    wanted, cause = machine.wanted()
    changes = wanted is not None and wanted != stable
    policy = facts.deployment.spec.rollout
    held = why_held(facts, policy, stable, blocked, changes=changes)
    if held is None and changes:
        held = why_not_begun(facts, stable)
    if held is not None or wanted is None or not changes:
        return replace(found, held=held)
    machine.put(Start(revision=wanted, cause=cause))
    if found.acts.paused and cause is None and stable is not None:
        return replace(found, paused=PAUSED_BY_ANNOTATION, by_annotation=True)
    return found
