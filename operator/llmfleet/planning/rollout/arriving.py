"""What spec asks for of a rollout: it goes on, has arrived, goes back, or begins."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from llmfleet.api import LLMDeployment
from llmfleet.planning.advice import command, resume
from llmfleet.planning.rollout.gates import may_promote, why_held, why_not_begun
from llmfleet.planning.rollout.inputs import (
    Restarted,
    Resume,
    Returned,
    Served,
    Start,
    Supersede,
)
from llmfleet.planning.rollout.machine import (
    REPLACED_ANYWAY,
    SUPERSEDED_MEANWHILE,
    Advance,
    Machine,
)
from llmfleet.planning.rollout.restarting import is_restarted
from llmfleet.planning.rollout.state import (
    SUPERSEDED,
    BackingOff,
    Going,
    Idle,
    Restarting,
    Returning,
    Unreadable,
)


def take_spec(machine: Machine, found: Advance, blocked: str | None) -> Advance:
    """What spec asks for: goes on, goes back, or begins."""
    facts, state = machine.facts, machine.state
    if isinstance(state, Unreadable):
        return replace(found, held=_unreadable_sentence(facts.deployment, state))
    if isinstance(state, Going):
        target = state.attempt.revision
        if may_promote(facts, state, machine.rejected, stopped=found.by_annotation):
            machine.put(Served())
            return replace(found, promoted=target, stable=target)
        wanted = machine.wanted()[0]
        changes = wanted != target
        held = why_held(
            facts, state.attempt.policy, machine.stable, blocked, changes=True, going=True
        )
        # Going back needs nothing of what a rollout is held for but to know where it goes.
        back = wanted == machine.stable and blocked is None and facts.history.held is None
        if held is not None and not back:
            return replace(found, held=held)
        if changes:
            machine.put(Supersede())
            # Nobody is waited for any more: what was asked of them was about going on.
            acts = found.acts.withdraw("promote", SUPERSEDED_MEANWHILE)
            found = replace(
                found, paused=None, by_annotation=False, steps=None, due=None, acts=acts
            )
    _arrive(machine, blocked)
    if not isinstance(machine.state, Idle | BackingOff | Restarting):
        return found
    return _begin_next(machine, found, blocked)


def _unreadable_sentence(deployment: LLMDeployment, state: Unreadable) -> str:
    text = f"the rollout in status cannot be read ({state.problem}), so everything stays as it is"
    fix = "upgrade the operator if a newer one wrote it, or correct status"
    if state.revision is not None:
        fix += f", or {command(deployment, 'abort', state.revision)} to go back"
    return f"{text}: {fix}"


def _arrive(machine: Machine, blocked: str | None) -> None:
    """A rollout on its way back is back, or asked for again before."""
    facts, state = machine.facts, machine.state
    if isinstance(state, Returning):
        target = state.attempt.revision
        again = state.reason == SUPERSEDED and state.undo_target is None
        if again and machine.wanted()[0] == target:
            machine.put(Resume())
        elif not facts.reaches(target) and (facts.may_shrink or _leads_nowhere(machine)):
            waits = state.undo_target is not None and (blocked is not None or not facts.replicas)
            if not waits:
                machine.put(Returned())
        elif _is_stranded(machine, state):
            machine.put(Returned())
    elif isinstance(state, Restarting) and is_restarted(facts, state):
        machine.put(Restarted())
    elif isinstance(state, BackingOff) and (
        state.attempt.revision != facts.spec_revision or facts.spec_revision in machine.rejected
    ):
        machine.put(Supersede())


def _leads_nowhere(machine: Machine) -> bool:
    """Whether it would wait for ever: routers are commanded nothing that they could confirm.

    Status was lost, and the served revision may gain nothing, because it is rejected.
    """
    return not machine.facts.traffic and machine.stable in machine.rejected


def _is_stranded(machine: Machine, state: Returning) -> bool:
    """Whether something else is wanted, and the served revision has no ready pod to go back to.

    Only when the progress deadline is over; what comes next takes the share over.
    """
    facts, attempt = machine.facts, state.attempt
    deadline = timedelta(seconds=attempt.policy.progress_deadline_seconds)
    overdue = attempt.waiting_since is None and machine.now >= attempt.progressed_at + deadline
    if facts.replicas == 0 or facts.arm(machine.stable).ready or not overdue:
        return False
    wanted = machine.wanted()[0]
    return state.undo_target is not None or wanted not in {machine.stable, attempt.revision}


def _begin_next(machine: Machine, found: Advance, blocked: str | None) -> Advance:
    facts, stable = machine.facts, machine.stable
    wanted, cause = machine.wanted()
    changes = wanted is not None and wanted != stable
    policy = facts.deployment.spec.rollout
    held = why_held(facts, policy, stable, blocked, changes=changes)
    if held is None and wanted is not None and changes:
        held = why_not_begun(facts, stable, wanted)
    if held is not None or wanted is None or not changes:
        return replace(found, held=held)
    machine.put(Start(revision=wanted, cause=cause))
    found = replace(found, acts=found.acts.withdraw("restart", REPLACED_ANYWAY))
    if found.acts.paused and cause is None and stable is not None:
        return replace(found, paused=resume(facts.deployment), by_annotation=True)
    return found
